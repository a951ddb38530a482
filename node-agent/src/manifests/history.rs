//! What is in force of objects that cannot be read any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifests::object::{Object, ObjectKey};
use crate::manifests::objects::Origin;
use crate::manifests::parse::{Parsed, Refusal};
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
        let (read, mut problems) = collect(files);
        let mut in_force = read.clone();
        let mut closing = Vec::new();
        let mut effects = Effects::new();
        for &parsed in files {
            let gone = self.gone_from(parsed, &read);
            in_force.extend(
                gone.iter()
                    .map(|(key, stored)| ((*key).clone(), (*stored).clone())),
            );
            let mut earlier_version = |refusal: &Refusal| match &refusal.object {
                None => !gone.is_empty(),
                Some(key) if read.contains_key(key) => false,
                Some(key) => match self.good.get(key) {
                    Some(earlier) => {
                        in_force.insert(key.clone(), earlier.clone());
                        true
                    }
                    None => false,
                },
            };
            for refusal in &parsed.refusals {
                let effect = if earlier_version(refusal) {
                    Effect::EarlierVersion
                } else if refusal.object.as_ref().is_some_and(|key| read.contains_key(key)) {
                    Effect::Refused
                } else {
                    let may_close = !self.started || self.unmended.contains(&parsed.file);
                    let scope = if may_close {
                        refusal.scope.clone()
                    } else {
                        Scope::Nothing
                    };
                    closing.push((parsed.file.clone(), scope.clone()));
                    scope.effect()
                };
                effects.insert(
                    (parsed.file.clone(), refusal.document, refusal.object.clone()),
                    effect,
                );
            }
        }
        set_effects(&mut problems, &effects);
        closing.retain(|(_, scope)| *scope != Scope::Nothing);
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

    /// All that the file had and has no more. Where something in it is refused and it is not known what, it may be
    /// any of these.
    fn gone_from(&self, parsed: &Parsed, read: &Collection) -> Vec<(&ObjectKey, &Stored)> {
        if parsed.refusals.iter().all(|refusal| refusal.object.is_some()) {
            return Vec::new();
        }
        let of_file = |stored: &Stored| {
            parsed
                .file
                .as_ref()
                .is_none_or(|file| stored.origin.file == *file)
        };
        self.good
            .iter()
            .filter(|(key, stored)| of_file(stored) && !read.contains_key(key))
            .collect()
    }
}

/// By file, document and object.
type Effects = BTreeMap<(Option<String>, usize, Option<ObjectKey>), Effect>;

/// Of two objects of the same kind and name the first counts.
fn collect(files: &[&Parsed]) -> (Collection, Vec<ManifestProblem>) {
    let mut objects = Collection::new();
    let mut problems = Vec::new();
    for parsed in files {
        problems.extend(parsed.problems.iter().cloned());
        for entry in &parsed.entries {
            let origin = Origin {
                file: parsed.file.clone().unwrap_or_default(),
                document: entry.document,
                line: entry.line,
            };
            if let Some(first) = objects.get(&entry.key) {
                problems.push(duplicate(&entry.key, origin, &first.origin));
            } else {
                objects.insert(
                    entry.key.clone(),
                    Stored {
                        object: entry.object.clone(),
                        origin,
                    },
                );
            }
        }
    }
    (objects, problems)
}

fn duplicate(key: &ObjectKey, origin: Origin, first: &Origin) -> ManifestProblem {
    ManifestProblem {
        file: origin.file,
        document: origin.document,
        line: origin.line,
        object: Some(key.clone()),
        field: "metadata.name".to_owned(),
        code: ProblemCode::Duplicate,
        message: format!("it is in {first} already, which is the one that counts"),
        effect: Effect::Refused,
    }
}

/// A duplicate is refused whatever else is wrong in its document.
fn set_effects(problems: &mut [ManifestProblem], effects: &Effects) {
    for problem in problems
        .iter_mut()
        .filter(|problem| problem.code != ProblemCode::Duplicate)
    {
        let file = (!problem.file.is_empty()).then(|| problem.file.clone());
        if let Some(effect) = effects.get(&(file, problem.document, problem.object.clone())) {
            problem.effect = effect.clone();
        }
    }
}

impl Scope {
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

    #[test]
    fn a_good_copy_elsewhere_counts() {
        let mut history = History::default();
        let merged = merge(&mut history, &[("f", BAD), ("g", GOOD)]);
        assert_eq!(merged, state(&["NetworkPolicy a/p"], &[], &[Effect::Refused]));
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
