//! What is in force of objects that are there twice or cannot be read any more, and what is closed instead.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifests::claims::{Chosen, Claim, Claims, claims};
use crate::manifests::object::{Kind, Object, ObjectKey};
use crate::manifests::objects::Origin;
use crate::manifests::parse::Parsed;
use crate::manifests::problem::{Effect, ManifestProblem, ProblemCode};

/// The pods that something unreadable could have been about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Nothing,
    Namespace(String),
    All,
}

/// An object and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub object: Object,
    pub origin: Origin,
}

pub(crate) type Collection = BTreeMap<ObjectKey, Stored>;

/// The pods that are closed because of what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    pub all: bool,
    pub namespaces: BTreeSet<String>,
}

/// What the files said before, in this run.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Set by the first [`merge`](Self::merge).
    started: bool,
    /// What was in force after the last merge.
    good: Collection,
    /// The files that have closed pods in every merge so far; `None` is the directory itself.
    unmended: BTreeSet<Option<String>>,
    closed: Closed,
}

impl History {
    /// Takes what all files say, in the order of their names, and returns what is in force.
    pub(crate) fn merge(&mut self, files: &[&Parsed]) -> (Collection, Vec<ManifestProblem>) {
        let claims = claims(files, &self.good);
        let mut closing = Closing {
            history: self,
            closed: BTreeSet::new(),
        };
        let mut problems = Vec::new();
        for parsed in files {
            problems.extend(refused(parsed, &claims, &mut closing));
        }
        for (key, (claims, chosen)) in &claims {
            problems.extend(duplicates(key, claims, *chosen, &mut closing));
        }
        let closing = closing.closed;
        let in_force: Collection = claims
            .iter()
            .filter_map(|(key, (claims, chosen))| Some(((*key).clone(), in_force(claims, *chosen)?)))
            .collect();
        self.started = true;
        self.unmended = closing.iter().map(|(file, _)| file.clone()).collect();
        self.closed = Closed::of(closing.into_iter().map(|(_, scope)| scope));
        self.good.clone_from(&in_force);
        problems.sort();
        (in_force, problems)
    }

    /// As of the last merge.
    pub(crate) fn closed(&self) -> &Closed {
        &self.closed
    }
}

fn in_force(claims: &[Claim<'_>], chosen: Chosen<'_>) -> Option<Stored> {
    match chosen {
        Chosen::Claim(index, object) => Some(Stored {
            object: object.clone(),
            origin: claims[index].origin.clone(),
        }),
        Chosen::Earlier(earlier) => Some(earlier.clone()),
        Chosen::Nothing => None,
    }
}

/// The pods that a merge closes, and because of which file.
struct Closing<'a> {
    history: &'a History,
    closed: BTreeSet<(Option<String>, Scope)>,
}

impl Closing<'_> {
    /// What a file that leaves this open comes to: only what was so from the start closes.
    fn leave(&mut self, file: Option<&str>, scope: &Scope) -> Effect {
        let file = file.map(str::to_owned);
        let may_close = !self.history.started || self.history.unmended.contains(&file);
        if !may_close || *scope == Scope::Nothing {
            return Effect::Refused;
        }
        self.closed.insert((file, scope.clone()));
        scope.effect()
    }
}

/// The problems of what is refused in a file, with what follows from them.
fn refused(parsed: &Parsed, claims: &Claims<'_>, closing: &mut Closing<'_>) -> Vec<ManifestProblem> {
    let file = parsed.file.as_deref();
    let kept: Vec<&ObjectKey> = claims
        .iter()
        .filter(|(_, (_, chosen))| match chosen {
            Chosen::Earlier(earlier) => file.is_none_or(|file| earlier.origin.file == file),
            Chosen::Claim(..) | Chosen::Nothing => false,
        })
        .map(|(key, _)| *key)
        .collect();
    let effects = parsed.refusals.iter().map(|refusal| {
        let effect = match refusal.object.as_ref().map(|key| claims[key].1) {
            Some(Chosen::Claim(..)) => Effect::Refused,
            Some(Chosen::Earlier(_)) => Effect::EarlierVersion,
            // It may be anything that the file had and has no more.
            None if kept.iter().any(|key| refusal.may_be(key)) => Effect::EarlierVersion,
            Some(Chosen::Nothing) | None => closing.leave(file, &refusal.scope),
        };
        ((refusal.document, refusal.object.as_ref()), effect)
    });
    let effects: BTreeMap<(usize, Option<&ObjectKey>), Effect> = effects.collect();
    let mut problems = parsed.problems.clone();
    for problem in &mut problems {
        if let Some(effect) = effects.get(&(problem.document, problem.object.as_ref())) {
            problem.effect.clone_from(effect);
        }
    }
    problems
}

/// One problem for each copy that can be read and does not count.
fn duplicates(
    key: &ObjectKey,
    claims: &[Claim<'_>],
    chosen: Chosen<'_>,
    closing: &mut Closing<'_>,
) -> Vec<ManifestProblem> {
    let copies = claims.iter().enumerate();
    let copies = copies.filter(|(index, claim)| {
        claim.object.is_some() && !matches!(chosen, Chosen::Claim(chosen, _) if chosen == *index)
    });
    let problems = copies.map(|(_, claim)| {
        let origin = &claim.origin;
        let message = match chosen {
            Chosen::Claim(chosen, _) => {
                let there = &claims[chosen].origin;
                format!("it is in {there} already, which is the one that counts")
            }
            Chosen::Earlier(_) | Chosen::Nothing => contradiction(claim, claims),
        };
        let effect = match chosen {
            Chosen::Claim(..) => Effect::Refused,
            Chosen::Earlier(_) => Effect::EarlierVersion,
            Chosen::Nothing => closing.leave(Some(&origin.file), &Scope::of(key)),
        };
        ManifestProblem {
            file: origin.file.clone(),
            document: origin.document,
            line: origin.line,
            object: Some(key.clone()),
            field: "metadata.name".to_owned(),
            code: ProblemCode::Duplicate,
            message,
            effect,
        }
    });
    problems.collect()
}

/// Why a copy that can be read does not count, nor any other.
fn contradiction(claim: &Claim<'_>, claims: &[Claim<'_>]) -> String {
    match claims.iter().find(|other| other.object != claim.object) {
        Some(Claim { origin, object: None }) => {
            format!("it is in {origin} too, where it cannot be read")
        }
        Some(Claim { origin, .. }) => format!("it is in {origin} too, and differs there"),
        None => "the file that had it cannot be read and may have it still".to_owned(),
    }
}

impl Scope {
    /// The pods that a policy is about; nothing where the object is none.
    pub(super) fn of(key: &ObjectKey) -> Self {
        match key.kind {
            Kind::NetworkPolicy => Self::Namespace(key.namespace.clone()),
            Kind::ClusterNetworkPolicy => Self::All,
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::FlowLogPolicy => Self::Nothing,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Nothing => Effect::Refused,
            Self::Namespace(namespace) => Effect::ClosesNamespace(namespace.clone()),
            Self::All => Effect::ClosesAll,
        }
    }
}

impl Closed {
    fn of(scopes: impl Iterator<Item = Scope>) -> Self {
        let mut closed = Self::default();
        for scope in scopes {
            match scope {
                Scope::Nothing => {}
                Scope::Namespace(namespace) => {
                    closed.namespaces.insert(namespace);
                }
                Scope::All => closed.all = true,
            }
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::parse::parse;

    const GOOD: &str =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}}";
    const BAD: &str =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, x: 1}";
    const BAD_TOO: &str =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: q, namespace: b}, x: 1}";
    const BAD_CLUSTER: &str =
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: r}}";

    /// Names in force, closed namespaces (`*` for all) and the effects of the problems.
    type State = (Vec<String>, Vec<String>, Vec<Effect>);

    fn merge(history: &mut History, files: &[(&str, &str)]) -> State {
        let parsed: Vec<Parsed> = files.iter().map(|(name, text)| parse(name, text)).collect();
        let (objects, problems) = history.merge(&parsed.iter().collect::<Vec<_>>());
        let Closed { all, namespaces } = history.closed().clone();
        (
            objects.keys().map(ToString::to_string).collect(),
            namespaces
                .into_iter()
                .chain(all.then(|| "*".to_owned()))
                .collect(),
            problems.into_iter().map(|problem| problem.effect).collect(),
        )
    }

    fn state(objects: &[&str], closed: &[&str], effects: &[Effect]) -> State {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        (owned(objects), owned(closed), effects.to_vec())
    }

    fn closes(namespace: &str) -> Effect {
        Effect::ClosesNamespace(namespace.to_owned())
    }

    #[test]
    fn a_policy_that_cannot_be_read_at_the_start_closes_until_it_is_mended() {
        let mut history = History::default();
        let h = &mut history;
        assert_eq!(merge(h, &[("f", BAD)]), state(&[], &["a"], &[closes("a")]));
        assert_eq!(merge(h, &[("f", BAD)]), state(&[], &["a"], &[closes("a")]));
        assert_eq!(
            merge(h, &[("f", "a: [")]),
            state(&[], &["*"], &[Effect::ClosesAll]),
            "worse"
        );
        assert_eq!(merge(h, &[("f", BAD_TOO)]), state(&[], &["b"], &[closes("b")]));
        assert_eq!(merge(h, &[("f", GOOD)]), state(&["NetworkPolicy a/p"], &[], &[]));
        assert_eq!(
            merge(h, &[("f", BAD_TOO)]),
            state(&[], &[], &[Effect::Refused]),
            "gone, and a new one"
        );
    }

    #[test]
    fn a_file_that_is_removed_is_mended() {
        let mut history = History::default();
        assert_eq!(
            merge(&mut history, &[("f", BAD_CLUSTER), ("g", BAD_TOO)]).1,
            ["b", "*"]
        );
        assert_eq!(merge(&mut history, &[("g", BAD_TOO)]).1, ["b"]);
        assert_eq!(merge(&mut history, &[]).1, Vec::<String>::new());
    }

    #[test]
    fn what_was_in_force_stays() {
        let mut history = History::default();
        let h = &mut history;
        let good = state(&["NetworkPolicy a/p"], &[], &[]);
        let kept = state(&["NetworkPolicy a/p"], &[], &[Effect::EarlierVersion]);
        assert_eq!(merge(h, &[("f", GOOD)]), good);
        assert_eq!(merge(h, &[("f", BAD)]), kept);
        assert_eq!(
            merge(h, &[("f", "a: [")]),
            kept,
            "it may be anything that the file had"
        );
        assert_eq!(merge(h, &[("g", BAD)]), kept, "in another file");
        assert_eq!(merge(h, &[("f", GOOD)]), good);
        assert_eq!(merge(h, &[("f", "")]), state(&[], &[], &[]), "removed");
    }

    #[test]
    fn what_comes_later_and_cannot_be_read_is_not_in_force() {
        let mut history = History::default();
        let files = [("f", GOOD), ("g", BAD_TOO), ("h", "a: ["), ("i", BAD_CLUSTER)];
        assert_eq!(
            merge(&mut history, &files[..1]),
            state(&["NetworkPolicy a/p"], &[], &[])
        );
        let refused = [Effect::Refused, Effect::Refused, Effect::Refused];
        assert_eq!(
            merge(&mut history, &files),
            state(&["NetworkPolicy a/p"], &[], &refused)
        );
    }

    /// A merge, and which version of `NetworkPolicy a/p` and of `Node n` are in force: the annotation `v`.
    fn versions(history: &mut History, files: &[(&str, &str)]) -> (Vec<String>, Vec<String>, Vec<String>) {
        let parsed: Vec<Parsed> = files.iter().map(|(name, text)| parse(name, text)).collect();
        let (objects, problems) = history.merge(&parsed.iter().collect::<Vec<_>>());
        let version = |stored: &Stored| {
            let annotations = stored.object.metadata().annotations.clone().unwrap_or_default();
            format!("{} in {}", annotations["v"], stored.origin.file)
        };
        (
            objects.values().map(version).collect(),
            history.closed().namespaces.iter().cloned().collect(),
            problems.iter().map(ToString::to_string).collect(),
        )
    }

    fn policy(version: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: a, annotations: \
             {{v: {version}}}}}}}"
        )
    }

    fn node(version: &str) -> String {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: n, annotations: {{v: {version}}}}}}}")
    }

    fn problem(file: &str, text: &str) -> String {
        format!("{file}:1: document 1: NetworkPolicy a/p: metadata.name: {text} (Duplicate)")
    }

    fn owned<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(str::to_owned).to_vec()
    }

    #[test]
    fn a_duplicate_does_not_take_the_place_of_what_is_in_force() {
        let mut history = History::default();
        let h = &mut history;
        let (one, two, three) = (policy("one"), policy("two"), policy("three"));
        let counts = |file: &str, there: &str| {
            let text =
                format!("it is in {there} already, which is the one that counts; nothing of it is in force");
            vec![problem(file, &text)]
        };
        assert_eq!(versions(h, &[("m", &one)]), (owned(["one in m"]), vec![], vec![]));
        for files in [[("g", two.as_str()), ("m", &one)], [("m", &one), ("z", &two)]] {
            let duplicate = files.into_iter().find(|(_, text)| *text == two).expect("one").0;
            let expected = (owned(["one in m"]), vec![], counts(duplicate, "m:1"));
            assert_eq!(versions(h, &files), expected);
        }
        assert_eq!(
            versions(h, &[("g", &two), ("m", &three)]),
            (owned(["three in m"]), vec![], counts("g", "m:1")),
            "edits of the one that counts count"
        );
        let broken = three.replace("{apiVersion", "{x: 1, apiVersion");
        assert_eq!(
            versions(h, &[("g", &two), ("m", &broken)]).0,
            ["three in m"],
            "broken"
        );
        assert_eq!(
            versions(h, &[("g", &two), ("m", "[")]),
            (
                owned(["three in m"]),
                vec![],
                vec![
                    problem(
                        "g",
                        "the file that had it cannot be read and may have it still; the version that was read before \
                         stays in force"
                    ),
                    "m:2: document 1: did not find expected node content, while parsing a flow node; the version that \
                     was read before stays in force (MalformedYaml)"
                        .to_owned(),
                ]
            )
        );
        assert_eq!(
            versions(h, &[("g", &two)]),
            (owned(["two in g"]), vec![], vec![]),
            "the last"
        );
        assert_eq!(
            versions(h, &[("b", &two)]),
            (owned(["two in b"]), vec![], vec![]),
            "moved"
        );
        assert_eq!(
            versions(h, &[("a", &one), ("c", &two)]),
            (owned(["two in c"]), vec![], counts("a", "c:1")),
            "moved, and a duplicate"
        );
        assert_eq!(versions(h, &[]), (vec![], vec![], vec![]));
    }

    #[test]
    fn what_goes_from_beside_something_of_another_name_is_gone() {
        let mut history = History::default();
        let h = &mut history;
        let other = |name| format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}}}");
        let both = format!("{}\n---\n{}", other("web"), policy("one"));
        assert_eq!(versions(h, &[("m", &both)]).0, ["one in m"]);
        assert_eq!(
            versions(h, &[("m", &other("p"))]).0,
            ["one in m"],
            "it may be this one"
        );
        assert_eq!(
            versions(h, &[("b", &policy("two")), ("m", &other("web"))]).0,
            ["two in b"]
        );
        assert_eq!(versions(h, &[("m", &other("web"))]).0, Vec::<String>::new());
    }

    #[test]
    fn in_one_file_too_what_is_in_force_stays() {
        let mut history = History::default();
        let h = &mut history;
        let (one, two, three) = (policy("one"), policy("two"), policy("three"));
        let file = |documents: [&str; 2]| documents.join("\n---\n");
        assert_eq!(versions(h, &[("m", &one)]).0, ["one in m"]);
        assert_eq!(versions(h, &[("m", &file([&two, &one]))]).0, ["one in m"]);
        let (in_force, closed, problems) = versions(h, &[("m", &file([&two, &three]))]);
        assert_eq!((in_force, closed), (owned(["one in m"]), vec![]));
        let differs = |line, document, other| {
            format!(
                "m:{line}: document {document}: NetworkPolicy a/p: metadata.name: it is in m:{other} too, and differs \
                 there; the version that was read before stays in force (Duplicate)"
            )
        };
        assert_eq!(problems, [differs(1, 1, 3), differs(3, 2, 1)]);
        assert_eq!(versions(h, &[("m", &file([&two, &two]))]).0, ["two in m"]);
    }

    #[test]
    fn copies_of_a_policy_that_differ_at_the_start_close_till_one_is_left() {
        let mut history = History::default();
        let h = &mut history;
        let (one, two) = (policy("one"), policy("two"));
        let differs = |file: &str, there: &str, effect: &str| {
            problem(
                file,
                &format!("it is in {there} too, and differs there; {effect}"),
            )
        };
        let closes = "the pods of namespace a are closed until this is mended";
        let expected = (
            vec![],
            owned(["a"]),
            vec![differs("f", "g:1", closes), differs("g", "f:1", closes)],
        );
        for _ in 0..2 {
            assert_eq!(versions(h, &[("f", &one), ("g", &two)]), expected);
        }
        assert_eq!(versions(h, &[("g", &two)]), (owned(["two in g"]), vec![], vec![]));
        assert_eq!(versions(h, &[]), (vec![], vec![], vec![]));
        let refused = "nothing of it is in force";
        assert_eq!(
            versions(h, &[("f", &one), ("g", &two)]),
            (
                vec![],
                vec![],
                vec![differs("f", "g:1", refused), differs("g", "f:1", refused)]
            ),
            "both come later"
        );
        assert_eq!(
            versions(h, &[("f", &one), ("g", &one)]).0,
            ["one in f"],
            "they agree"
        );

        let cluster = |version: &str| {
            format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: r}}, \
                 spec: {{tier: Admin, priority: {version}, subject: {{namespaces: {{}}}}}}}}"
            )
        };
        let merged = merge(
            &mut History::default(),
            &[("f", &cluster("1")), ("g", &cluster("2"))],
        );
        assert_eq!(
            merged,
            state(&[], &["*"], &[Effect::ClosesAll, Effect::ClosesAll])
        );
    }

    #[test]
    fn of_copies_of_what_is_no_policy_the_first_counts_at_the_start() {
        let mut history = History::default();
        let (one, two) = (node("one"), node("two"));
        let (in_force, closed, problems) = versions(&mut history, &[("f", &one), ("g", &two)]);
        assert_eq!((in_force, closed), (owned(["one in f"]), vec![]));
        assert_eq!(
            problems,
            [
                "g:1: document 1: Node n: metadata.name: it is in f:1 already, which is the one that counts; nothing of it \
              is in force (Duplicate)"
            ]
        );
        assert_eq!(
            versions(&mut history, &[("e", &two), ("f", &one)]).0,
            ["one in f"]
        );
    }

    #[test]
    fn a_copy_that_cannot_be_read_is_a_copy_that_differs() {
        let mut history = History::default();
        let h = &mut history;
        let contested = state(&[], &["a"], &[closes("a"), closes("a")]);
        assert_eq!(merge(h, &[("f", BAD), ("g", GOOD)]), contested);
        assert_eq!(merge(h, &[("f", BAD), ("g", GOOD)]), contested);
        assert_eq!(merge(h, &[("g", GOOD)]), state(&["NetworkPolicy a/p"], &[], &[]));
        assert_eq!(
            merge(h, &[("f", BAD), ("g", GOOD)]),
            state(&["NetworkPolicy a/p"], &[], &[Effect::Refused])
        );
    }

    #[test]
    fn the_rest_of_a_broken_file_is_as_it_says() {
        let mut history = History::default();
        let other = GOOD.replace("name: p", "name: other");
        let both = format!("{GOOD}\n---\n{other}\n");
        let changed = format!("{}\n---\na: [\n", GOOD.replace("namespace: a", "namespace: c"));
        assert_eq!(
            merge(&mut history, &[("f", &both)]).0,
            ["NetworkPolicy a/other", "NetworkPolicy a/p"]
        );
        // Which of the two the malformed document was cannot be told, so both stay.
        assert_eq!(
            merge(&mut history, &[("f", &changed)]),
            state(
                &["NetworkPolicy a/other", "NetworkPolicy a/p", "NetworkPolicy c/p"],
                &[],
                &[Effect::EarlierVersion]
            )
        );
    }
}
