//! A YAML value → an API object, read as strictly as the API server reads it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_yaml_ng::{Mapping, Value};
use weir_api::{ClusterNetworkPolicy, FlowLogPolicy};

use crate::manifests::locate::Segment;

macro_rules! kinds {
    ($($kind:ident $scope:ident $api_version:literal;)+) => {
        /// The kinds that are read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($kind,)+
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }

            pub const fn api_version(self) -> &'static str {
                match self { $(Self::$kind => $api_version,)+ }
            }

            pub const fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => matches!(Scope::$scope, Scope::Namespaced),)+ }
            }
        }

        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum Object {
            $($kind(Arc<$kind>),)+
        }

        impl Object {
            pub(crate) fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)+ }
            }
        }

        /// Reads a value that says it is of this kind. `namespace` is what it gets where it names none.
        pub(crate) fn decode(
            kind: Kind,
            value: Value,
            namespace: Option<&str>,
        ) -> Result<Decoded, TypeError> {
            match kind {
                $(Kind::$kind => {
                    let (mut object, unknown) = read::<$kind>(value)?;
                    let metadata: &mut ObjectMeta = &mut object.metadata;
                    if metadata.namespace.is_none() {
                        metadata.namespace = namespace.map(str::to_owned);
                    }
                    Ok(Decoded { object: Object::$kind(Arc::new(object)), unknown })
                })+
            }
        }
    };
}

enum Scope {
    Namespaced,
    Cluster,
}

kinds! {
    Namespace Cluster "v1";
    Node Cluster "v1";
    Pod Namespaced "v1";
    Service Namespaced "v1";
    EndpointSlice Namespaced "discovery.k8s.io/v1";
    NetworkPolicy Namespaced "networking.k8s.io/v1";
    ClusterNetworkPolicy Cluster "policy.networking.k8s.io/v1alpha2";
    FlowLogPolicy Cluster "dataplane.weir.dev/v1alpha1";
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    pub name: String,
}

/// An object, and the fields that its kind does not have.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub object: Object,
    pub unknown: Vec<Vec<Segment>>,
}

/// A value of another type than its field's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TypeError {
    pub path: Vec<Segment>,
    pub message: String,
}

impl Kind {
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.api_version() == api_version && known.word() == kind)
    }
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

fn read<T: DeserializeOwned>(mut value: Value) -> Result<(T, Vec<Vec<Segment>>), TypeError> {
    if let Value::Mapping(object) = &mut value {
        // The types do not all have a place for what the caller has already looked at.
        object.shift_remove("apiVersion");
        object.shift_remove("kind");
        for part in ["spec", "status"] {
            object
                .get_mut(part)
                .into_iter()
                .for_each(write_quantities_as_text);
        }
    }
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(ignored_path(&path));
    let object = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(value, &mut note))
        .map_err(|error| TypeError {
            path: error_path(error.path()),
            message: error.inner().to_string(),
        })?;
    Ok((object, unknown))
}

/// The API admits quantities as numbers (`cpu: 2`), which the types do not.
fn write_quantities_as_text(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                match key.as_str() {
                    Some("limits" | "requests" | "overhead" | "capacity" | "allocatable" | "sizeLimit") => {
                        write_numbers_as_text(value);
                    }
                    _ => write_quantities_as_text(value),
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(write_quantities_as_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

fn write_numbers_as_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Mapping(mapping) => Mapping::values_mut(mapping).for_each(write_numbers_as_text),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Sequence(_) | Value::Tagged(_) => {}
    }
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> Vec<Segment> {
    use serde_ignored::Path;
    let (parent, segment) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Segment::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Segment::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut segments = ignored_path(parent);
    segments.extend(segment);
    segments
}

fn error_path(path: &serde_path_to_error::Path) -> Vec<Segment> {
    use serde_path_to_error::Segment as S;
    let segments = path.iter().filter_map(|segment| match segment {
        S::Seq { index } => Some(Segment::Index(*index)),
        S::Map { key } => Some(Segment::Key(key.clone())),
        S::Enum { .. } | S::Unknown => None,
    });
    segments.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::locate::field;

    fn decoded(kind: Kind, text: &str) -> Result<Decoded, TypeError> {
        decode(
            kind,
            serde_yaml_ng::from_str(text).expect("YAML"),
            Some("default"),
        )
    }

    fn unknown(kind: Kind, text: &str) -> Vec<String> {
        decoded(kind, text)
            .expect("an object")
            .unknown
            .iter()
            .map(|path| field(path))
            .collect()
    }

    fn error(kind: Kind, text: &str) -> (String, String) {
        let error = decoded(kind, text)
            .map(|decoded| decoded.object)
            .expect_err("no object");
        (field(&error.path), error.message)
    }

    #[test]
    fn fields_that_a_kind_does_not_have_are_named_wherever_they_stand() {
        let policy = "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {name: a, lables: {}}
            spec:
              podSelctor: {}
              ingress: [{}, {form: [], from: [{podSelector: {matchlabels: {}}}]}]";
        assert_eq!(
            unknown(Kind::NetworkPolicy, policy),
            [
                "metadata.lables",
                "spec.podSelctor",
                "spec.ingress[1].form",
                "spec.ingress[1].from[0].podSelector.matchlabels"
            ]
        );
        let policy = "
            apiVersion: policy.networking.k8s.io/v1alpha2
            kind: ClusterNetworkPolicy
            metadata: {name: a}
            spec:
              tier: Admin
              priority: 1
              subject: {namespaces: {}}
              egress: [{action: Deny, to: [{network: ['10.0.0.0/8']}]}]";
        assert_eq!(
            unknown(Kind::ClusterNetworkPolicy, policy),
            ["spec.egress[0].to[0].network"]
        );
        assert_eq!(
            unknown(
                Kind::FlowLogPolicy,
                "{metadata: {name: a}, spec: {sink: {file: {pth: /x}}}, x: 1}"
            ),
            ["spec.sink.file.pth", "x"]
        );
    }

    #[test]
    fn values_of_another_type_are_named() {
        assert_eq!(
            error(Kind::Service, "{spec: {ports: [{port: 80}, {port: http}]}}"),
            (
                "spec.ports[1].port".to_owned(),
                "invalid type: string \"http\", expected i32".to_owned()
            )
        );
        assert_eq!(
            error(Kind::Pod, "{metadata: {labels: {app: 1}}}"),
            (
                "metadata.labels.app".to_owned(),
                "invalid type: integer `1`, expected a string".to_owned()
            )
        );
        assert_eq!(
            error(
                Kind::ClusterNetworkPolicy,
                "{metadata: {name: a}, spec: {tier: Platform}}"
            ),
            (
                "spec.tier".to_owned(),
                "unknown variant `Platform`, expected `Admin` or `Baseline`".to_owned()
            )
        );
        assert_eq!(
            error(Kind::ClusterNetworkPolicy, "{metadata: {name: a}}"),
            (String::new(), "missing field `spec`".to_owned())
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let pod = "{spec: {containers: [{name: a, resources: {limits: {cpu: 2, memory: 1Gi}}}]}}";
        let Ok(Decoded {
            object: Object::Pod(pod),
            unknown,
        }) = decoded(Kind::Pod, pod)
        else {
            panic!("no Pod");
        };
        assert_eq!(unknown, Vec::<Vec<Segment>>::new());
        let limits = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers[0].resources.clone()?.limits);
        let limits: Vec<_> = limits
            .into_iter()
            .flatten()
            .map(|(key, quantity)| (key, quantity.0))
            .collect();
        assert_eq!(
            limits,
            [
                ("cpu".to_owned(), "2".to_owned()),
                ("memory".to_owned(), "1Gi".to_owned())
            ]
        );
    }

    #[test]
    fn an_object_without_a_namespace_gets_the_one_that_is_given() {
        let namespace = |text: &str| {
            decoded(Kind::Pod, text)
                .expect("a Pod")
                .object
                .metadata()
                .namespace
                .clone()
        };
        assert_eq!(namespace("{metadata: {name: a}}"), Some("default".to_owned()));
        assert_eq!(
            namespace("{metadata: {name: a, namespace: b}}"),
            Some("b".to_owned())
        );
    }

    #[test]
    fn kinds_are_found_with_their_version() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::of(kind.api_version(), kind.word()), Some(kind));
        }
        assert_eq!(Kind::of("networking.k8s.io/v1beta1", "NetworkPolicy"), None);
        assert_eq!(Kind::of("v1", "ConfigMap"), None);
    }
}
