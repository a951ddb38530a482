//! A file's text → the objects in it, and what is wrong with the rest.

use std::io;
use std::ops::Range;

use serde_yaml_ng::Value;

use crate::manifests::document::{Document, documents};
use crate::manifests::history::Scope;
use crate::manifests::locate::{Locator, Segment, field};
use crate::manifests::names;
use crate::manifests::object::{Decoded, Kind, Object, ObjectKey, TypeError, decode};
use crate::manifests::problem::{Effect, ManifestProblem, ProblemCode};
use crate::manifests::validate::validate;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// `None` where it stands for the directory itself.
    pub(crate) file: Option<String>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) problems: Vec<ManifestProblem>,
}

/// An object that is as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: ObjectKey,
    pub document: usize,
    /// Where in the file the document's text is, in bytes, and its first line, from 0.
    pub text: Range<usize>,
    pub first_line: usize,
    /// Where in the document the object is: not empty in a List.
    pub path: Vec<Segment>,
    /// Line of the object in the file, from 1; not known of one in a List.
    pub line: Option<usize>,
    pub object: Object,
}

/// Something that is in the file and could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub document: usize,
    /// Which object it would have been, where that can be told.
    pub object: Option<ObjectKey>,
    /// Its `metadata.name`, where that is told.
    pub name: Option<String>,
    /// The pods that it could have been about.
    pub scope: Scope,
}

/// Reads the text of a file. `file` is its name, for the problems.
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut parsed = Parsed {
        file: Some(file.to_owned()),
        ..Parsed::default()
    };
    let locator = Locator::default();
    for document in documents(text) {
        match &document.content {
            Ok(content) => {
                let reader = Reader {
                    document: &document,
                    locator: &locator,
                    parsed: &mut parsed,
                    prefix: &[],
                    name: None,
                };
                reader.read(content, None);
            }
            Err(malformed) => {
                let problem = problem(
                    file,
                    document.number,
                    malformed.line,
                    ProblemCode::MalformedYaml,
                    &malformed.message,
                );
                parsed.problems.push(problem);
                parsed.refusals.push(Refusal {
                    document: document.number,
                    object: None,
                    name: None,
                    scope: Scope::All,
                });
            }
        }
    }
    parsed
}

impl Parsed {
    /// A file, or without a name the directory, that cannot be read at all.
    pub(crate) fn unreadable(file: Option<String>, error: &io::Error) -> Self {
        let name = file.clone().unwrap_or_default();
        let message = format!("it cannot be read: {error}");
        Self {
            file,
            entries: Vec::new(),
            refusals: vec![Refusal {
                document: 0,
                object: None,
                name: None,
                scope: Scope::All,
            }],
            problems: vec![problem(&name, 0, None, ProblemCode::Unreadable, &message)],
        }
    }
}

impl Refusal {
    /// Whether it cannot be told which object it is, and it may be this one.
    pub(crate) fn may_be(&self, key: &ObjectKey) -> bool {
        self.object.is_none() && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

fn problem(
    file: &str,
    document: usize,
    line: Option<usize>,
    code: ProblemCode,
    message: &str,
) -> ManifestProblem {
    ManifestProblem {
        file: file.to_owned(),
        document,
        line,
        object: None,
        field: String::new(),
        code,
        message: message.to_owned(),
        effect: Effect::Refused,
    }
}

/// Reads one value of a document.
struct Reader<'a> {
    document: &'a Document<'a>,
    locator: &'a Locator,
    parsed: &'a mut Parsed,
    /// As [`Entry::path`].
    prefix: &'a [Segment],
    /// As [`Refusal::name`].
    name: Option<String>,
}

/// `apiVersion` and `kind`.
type Header<'a> = (&'a str, &'a str);

impl Reader<'_> {
    /// `inherited` is what the items of a typed list are, which need not say so themselves.
    fn read(mut self, value: &Value, inherited: Option<Header<'_>>) {
        let name = value.get("metadata").and_then(|metadata| metadata.get("name"));
        self.name = name.and_then(Value::as_str).map(str::to_owned);
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let header = match (text("apiVersion"), text("kind")) {
            (Some(api_version), Some(kind)) => Some((api_version, kind)),
            _ => inherited,
        };
        let Some((api_version, kind)) = header else {
            let scope = policy_scope(value);
            let message = "this is no Kubernetes object: one has an apiVersion and a kind";
            return self.refuse(None, scope, ProblemCode::NotAnObject, &[], message.to_owned());
        };
        match (Kind::of(api_version, kind), value.get("items")) {
            (Some(kind), _) => self.read_object(kind, value),
            (None, Some(Value::Sequence(items))) if kind.ends_with("List") => {
                self.read_list((api_version, kind), items);
            }
            (None, _) => {
                let scope = if may_be_policy(api_version, kind) {
                    policy_scope(value)
                } else {
                    Scope::Nothing
                };
                let message = format!("{kind} of {api_version} is not read here");
                self.refuse(
                    None,
                    scope,
                    ProblemCode::UnknownKind,
                    &[Segment::from("kind")],
                    message,
                );
            }
        }
    }

    fn read_list(self, (api_version, kind): Header<'_>, items: &[Value]) {
        let item_kind = kind.strip_suffix("List").unwrap_or_default();
        let inherited = (!item_kind.is_empty()).then_some((api_version, item_kind));
        for (i, item) in items.iter().enumerate() {
            let prefix = [self.prefix, &[Segment::from("items"), Segment::from(i)]].concat();
            let reader = Reader {
                document: self.document,
                locator: self.locator,
                parsed: &mut *self.parsed,
                prefix: &prefix,
                name: None,
            };
            reader.read(item, inherited);
        }
    }

    fn read_object(mut self, kind: Kind, value: &Value) {
        let metadata = |field: &str| {
            value
                .get("metadata")?
                .get(field)?
                .as_str()
                .filter(|text| !text.is_empty())
        };
        let namespace = if kind.is_namespaced() {
            metadata("namespace").unwrap_or("default")
        } else {
            ""
        };
        let key = metadata("name").map(|name| ObjectKey::new(kind, namespace, name));
        let scope = match kind {
            Kind::NetworkPolicy => policy_scope(value),
            Kind::ClusterNetworkPolicy => Scope::All,
            Kind::Namespace => {
                metadata("name").map_or(Scope::Nothing, |name| Scope::Namespace(name.to_owned()))
            }
            Kind::Node | Kind::Pod | Kind::Service | Kind::EndpointSlice | Kind::FlowLogPolicy => {
                Scope::Nothing
            }
        };
        let fallback = kind.is_namespaced().then_some(namespace);
        let Decoded { object, unknown } = match decode(kind, value.clone(), fallback) {
            Ok(decoded) => decoded,
            Err(TypeError { path, message }) => {
                return self.refuse(key.as_ref(), scope, ProblemCode::WrongType, &path, message);
            }
        };
        let mut faults: Vec<(ProblemCode, Vec<Segment>, String)> = Vec::new();
        for path in unknown {
            let message = format!("{kind} has no such field");
            faults.push((ProblemCode::UnknownField, path, message));
        }
        faults.extend(name_faults(kind, namespace, &object));
        let invalid = validate(&object).into_iter();
        faults.extend(invalid.map(|invalid| (ProblemCode::InvalidValue, invalid.path, invalid.message)));
        match key {
            Some(key) if faults.is_empty() => {
                let line = if self.prefix.is_empty() {
                    self.line(&[])
                } else {
                    None
                };
                self.parsed.entries.push(Entry {
                    key,
                    document: self.document.number,
                    text: self.document.range.clone(),
                    first_line: self.document.first_line,
                    path: self.prefix.to_vec(),
                    line,
                    object,
                });
            }
            key => {
                for (code, path, message) in faults {
                    self.refuse(key.as_ref(), scope.clone(), code, &path, message);
                }
            }
        }
    }

    fn refuse(
        &mut self,
        object: Option<&ObjectKey>,
        scope: Scope,
        code: ProblemCode,
        path: &[Segment],
        message: String,
    ) {
        let refusal = Refusal {
            document: self.document.number,
            object: object.cloned(),
            name: self.name.clone(),
            scope,
        };
        if self.parsed.refusals.last() != Some(&refusal) {
            self.parsed.refusals.push(refusal);
        }
        self.parsed.problems.push(ManifestProblem {
            file: self.parsed.file.clone().unwrap_or_default(),
            document: self.document.number,
            line: self.line(path),
            object: object.cloned(),
            field: if object.is_some() {
                field(path)
            } else {
                field(&[self.prefix, path].concat())
            },
            code,
            message,
            effect: Effect::Refused,
        });
    }

    fn line(&self, path: &[Segment]) -> Option<usize> {
        let line = self
            .locator
            .line(self.document.text, &[self.prefix, path].concat())?;
        Some(self.document.first_line + line)
    }
}

fn name_faults(kind: Kind, namespace: &str, object: &Object) -> Vec<(ProblemCode, Vec<Segment>, String)> {
    let mut faults = Vec::new();
    let path = |field: &str| vec![Segment::from("metadata"), Segment::from(field)];
    match object.metadata().name.as_deref() {
        None | Some("") => {
            faults.push((
                ProblemCode::MissingName,
                path("name"),
                format!("the {kind} has no name"),
            ));
        }
        Some(name) => {
            // A Service's name is a DNS label (`ValidateServiceName`), as a Namespace's is.
            let rule = match kind {
                Kind::Namespace | Kind::Service => names::label,
                Kind::Node
                | Kind::Pod
                | Kind::EndpointSlice
                | Kind::NetworkPolicy
                | Kind::ClusterNetworkPolicy
                | Kind::FlowLogPolicy => names::subdomain,
            };
            faults.extend(
                rule(name)
                    .err()
                    .map(|message| (ProblemCode::InvalidName, path("name"), message)),
            );
        }
    }
    if kind.is_namespaced() {
        let message = names::label(namespace).err();
        faults.extend(message.map(|message| (ProblemCode::InvalidName, path("namespace"), message)));
    } else if object
        .metadata()
        .namespace
        .as_deref()
        .is_some_and(|namespace| !namespace.is_empty())
    {
        let message = format!("a {kind} is in no namespace");
        faults.push((ProblemCode::InvalidValue, path("namespace"), message));
    }
    faults
}

/// Whether an object of an unknown kind may be somebody's policy: a later version, or a misspelled word.
fn may_be_policy(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match group {
        "policy.networking.k8s.io" => true,
        "networking.k8s.io" => !matches!(
            kind,
            "Ingress" | "IngressClass" | "IPAddress" | "ServiceCIDR" | "ClusterCIDR"
        ),
        _ => kind.ends_with("NetworkPolicy"),
    }
}

/// The pods that a policy might be about of which nothing but its namespace can be told, if that.
fn policy_scope(value: &Value) -> Scope {
    let namespaced = value.get("kind").and_then(Value::as_str) == Some("NetworkPolicy");
    match value
        .get("metadata")
        .and_then(|metadata| metadata.get("namespace"))
    {
        Some(Value::String(namespace)) if names::label(namespace).is_ok() => {
            Scope::Namespace(namespace.clone())
        }
        None if namespaced && value.get("metadata").is_some_and(Value::is_mapping) => {
            Scope::Namespace("default".to_owned())
        }
        _ => Scope::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("f.yaml", text)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn objects(text: &str) -> Vec<String> {
        let parsed = parse("f.yaml", text);
        assert_eq!((parsed.problems, parsed.refusals), (vec![], vec![]));
        parsed
            .entries
            .iter()
            .map(|entry| format!("{} {:?}", entry.key, entry.line))
            .collect()
    }

    fn refusals(text: &str) -> Vec<(Option<String>, Scope)> {
        let parsed = parse("f.yaml", text);
        assert_eq!(parsed.entries, vec![]);
        parsed
            .refusals
            .into_iter()
            .map(|refusal| (refusal.object.map(|key| key.to_string()), refusal.scope))
            .collect()
    }

    fn namespace(name: &str) -> Scope {
        Scope::Namespace(name.to_owned())
    }

    #[test]
    fn objects_stand_alone_and_in_lists() {
        let text = "\
apiVersion: v1
kind: Namespace
metadata: {name: ns}
---
# items say what they are
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: ns}
- {apiVersion: v1, kind: PodList, items: [{metadata: {name: b}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
metadata: {resourceVersion: '7'}
items:
- metadata: {name: c}
  spec: {podSelector: {}}
";
        assert_eq!(
            objects(text),
            [
                "Namespace ns Some(1)",
                "Pod ns/a None",
                "Pod default/b None",
                "NetworkPolicy default/c None"
            ]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let text = "\
apiVersion: v1
kind: Pod
metadata:
  namespace: default
---
apiVersion: v1
kind: Service
metadata:
  name: S
  namespace: '-'
  lables: {}
---
just words
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: typed
spec:
  ingress:
  - ports:
    - port: 80
      endPort: high
---
{apiVersion: v1, kind: Node, metadata: {name: n, namespace: ns, labels: {a b: c}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
---
apiVersion: v1
kind: List
items: [{kind: Pod}, 7]
---
a: [
";
        assert_eq!(
            problems(text),
            [
                "f.yaml:3: document 1: metadata.name: the Pod has no name; nothing of it is in force (MissingName)",
                "f.yaml:11: document 2: Service -/S: metadata.lables: Service has no such field; nothing of it is in \
                 force (UnknownField)",
                "f.yaml:9: document 2: Service -/S: metadata.name: \"S\" is no name: 1 to 63 lower case letters, digits \
                 and '-', with a letter or digit at both ends; nothing of it is in force (InvalidName)",
                "f.yaml:10: document 2: Service -/S: metadata.namespace: \"-\" is no name: 1 to 63 lower case letters, \
                 digits and '-', with a letter or digit at both ends; nothing of it is in force (InvalidName)",
                "f.yaml:13: document 3: this is no Kubernetes object: one has an apiVersion and a kind; nothing of it \
                 is in force (NotAnObject)",
                "f.yaml:23: document 4: NetworkPolicy default/typed: spec.ingress[0].ports[0].endPort: invalid type: \
                 string \"high\", expected i32; nothing of it is in force (WrongType)",
                "f.yaml:25: document 5: Node n: metadata.namespace: a Node is in no namespace; nothing of it is in \
                 force (InvalidValue)",
                "f.yaml:25: document 5: Node n: metadata.labels.a b: \"a b\" is no key: a name of up to 63 characters, \
                 with a DNS name and '/' in front if need be; nothing of it is in force (InvalidValue)",
                "f.yaml:28: document 6: kind: Deployment of apps/v1 is not read here; nothing of it is in force \
                 (UnknownKind)",
                "f.yaml:33: document 7: items[0]: this is no Kubernetes object: one has an apiVersion and a kind; \
                 nothing of it is in force (NotAnObject)",
                "f.yaml:33: document 7: items[1]: this is no Kubernetes object: one has an apiVersion and a kind; \
                 nothing of it is in force (NotAnObject)",
                "f.yaml:36: document 8: did not find expected node content, while parsing a flow node; nothing of it is in \
                 force (MalformedYaml)",
            ]
        );
    }

    #[test]
    fn what_is_refused_tells_whom_it_may_have_been_about() {
        let object = |api_version: &str, kind: &str, rest: &str| {
            refusals(&format!("{{apiVersion: {api_version}, kind: {kind}, {rest}}}"))
        };
        let network_policy = |rest: &str| object("networking.k8s.io/v1", "NetworkPolicy", rest);
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            network_policy("metadata: {name: p, namespace: ns}, spec: 7"),
            [(some("NetworkPolicy ns/p"), namespace("ns"))]
        );
        assert_eq!(
            network_policy("metadata: {namespace: ns}"),
            [(None, namespace("ns"))]
        );
        assert_eq!(
            network_policy("metadata: {name: p}, x: 1"),
            [(some("NetworkPolicy default/p"), namespace("default"))]
        );
        assert_eq!(
            network_policy("metadata: {name: p, namespace: [ns]}"),
            [(some("NetworkPolicy default/p"), Scope::All)]
        );
        assert_eq!(network_policy("metadata: 7"), [(None, Scope::All)]);
        let cluster = "policy.networking.k8s.io/v1alpha2";
        assert_eq!(
            object(cluster, "ClusterNetworkPolicy", "metadata: {name: p}"),
            [(some("ClusterNetworkPolicy p"), Scope::All)]
        );
        assert_eq!(
            object("v1", "Namespace", "metadata: {name: ns}, x: 1"),
            [(some("Namespace ns"), namespace("ns"))]
        );
        assert_eq!(
            object("v1", "Pod", "metadata: {name: p}, x: 1"),
            [(some("Pod default/p"), Scope::Nothing)]
        );

        let named = "metadata: {name: p}";
        assert_eq!(
            object("networking.k8s.io/v2", "NetworkPolicy", named),
            [(None, namespace("default"))]
        );
        assert_eq!(
            object("networking.k8s.io/v1", "NetworkPolcy", named),
            [(None, Scope::All)]
        );
        assert_eq!(
            object("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", named),
            [(None, Scope::All)]
        );
        assert_eq!(
            object("cilium.io/v2", "CiliumNetworkPolicy", named),
            [(None, Scope::All)]
        );
        assert_eq!(
            object("networking.k8s.io/v1", "Ingress", named),
            [(None, Scope::Nothing)]
        );
        assert_eq!(object("v1", "ConfigMap", named), [(None, Scope::Nothing)]);
        assert_eq!(
            refusals("{kind: NetworkPolicy, metadata: {namespace: ns}}"),
            [(None, namespace("ns"))]
        );
        assert_eq!(refusals("a: ["), [(None, Scope::All)]);
    }

    proptest::proptest! {
        /// Whatever a file says, it is read without a panic.
        #[test]
        fn no_text_panics(text in "([a-z{}\\[\\]:,&*!|> -]|\n|---\n|kind: |items: |apiVersion: v1\n){0,60}") {
            let _ = parse("f.yaml", &text);
        }
    }
}
