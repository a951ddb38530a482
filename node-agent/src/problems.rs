//! Problems of objects: told once when they come, and once when they are gone.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};
use weir_policy::problem::{Problem, Severity};

use crate::manifests::{Effect, Kind, ManifestProblem, Manifests, ObjectKey};

/// All problems that there are at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// How each is told of.
    texts: BTreeMap<String, Weight>,
    /// How many, by kind of object and of problem.
    pub counts: BTreeMap<(String, String), u64>,
}

/// How a problem is told of in the log, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is expected, and goes by itself.
    Passing,
    Note,
    Warning,
}

impl Weight {
    fn of(is_warning: bool) -> Self {
        if is_warning { Self::Warning } else { Self::Note }
    }
}

impl Problems {
    /// `kind` of the object and `code` of the problem are labels of metrics.
    pub fn add(&mut self, kind: &str, code: impl Into<String>, text: impl Into<String>, is_warning: bool) {
        self.add_weighed(kind, code, text, Weight::of(is_warning));
    }

    /// As [`add`](Self::add).
    pub fn add_weighed(
        &mut self,
        kind: &str,
        code: impl Into<String>,
        text: impl Into<String>,
        weight: Weight,
    ) {
        *self.counts.entry((kind.to_owned(), code.into())).or_default() += 1;
        self.texts.insert(text.into(), weight);
    }

    pub fn extend(&mut self, other: &Self) {
        for (labels, count) in &other.counts {
            *self.counts.entry(labels.clone()).or_default() += count;
        }
        self.texts.extend(other.texts.clone());
    }

    /// FlowLogPolicies whose settings of the log do not hold.
    pub fn add_overruled_logs(&mut self, names: &[String]) {
        for name in names {
            let text = format!(
                "FlowLogPolicy {name}: a node has one log, and a policy whose name comes before says how it is \
                 written"
            );
            self.add(Kind::FlowLogPolicy.word(), "SettingsOverruled", text, true);
        }
    }

    /// What the manifests cannot be read as, and what their policies do not mean.
    #[must_use]
    pub fn of_manifests(
        manifests: &Manifests,
        of_manifests: &[ManifestProblem],
        of_policies: &[Problem],
    ) -> Self {
        let mut problems = Self::default();
        for problem in of_manifests {
            let kind = problem.object.as_ref().map_or("", |object| object.kind.word());
            let is_warning = problem.effect != Effect::Noted;
            problems.add(kind, problem.code.to_string(), problem.to_string(), is_warning);
        }
        for problem in of_policies {
            problems.add(
                &problem.object.kind,
                format!("{:?}", problem.code),
                placed(manifests, problem),
                problem.severity() != Severity::Note,
            );
        }
        problems
    }

    /// Logs what was not so `before` or weighed less, and what was and is not any more.
    pub fn log_changes(&self, before: &Self) {
        for (text, weight) in self.newly(before) {
            match weight {
                Weight::Passing => debug!("{text}"),
                Weight::Note => info!("{text}"),
                Weight::Warning => warn!("{text}"),
            }
        }
        for (text, weight) in &before.texts {
            match (weight, self.texts.contains_key(text)) {
                (_, true) => {}
                (Weight::Passing, false) => debug!("no longer: {text}"),
                (Weight::Note | Weight::Warning, false) => info!("no longer: {text}"),
            }
        }
    }

    /// What is to be told of, given what was told `before`.
    fn newly(&self, before: &Self) -> BTreeMap<&str, Weight> {
        let is_new =
            |text: &String, weight: &Weight| before.texts.get(text).is_none_or(|before| before < weight);
        let new = self.texts.iter().filter(|(text, weight)| is_new(text, weight));
        new.map(|(text, weight)| (text.as_str(), *weight)).collect()
    }
}

/// A policy's problem with its place in the files.
fn placed(manifests: &Manifests, problem: &Problem) -> String {
    let object = &problem.object;
    let text = format!("{}: {}", problem.field, problem.message);
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let kind = Kind::ALL.iter().find(|kind| kind.word() == object.kind);
    let origin = kind
        .and_then(|kind| manifests.place(&ObjectKey::new(*kind, namespace, &object.name), &problem.field));
    match origin {
        Some(origin) => format!("{origin}: {object}: {text}"),
        None => format!("{object}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(all: &[(&str, Weight)]) -> Problems {
        let mut problems = Problems::default();
        for (text, weight) in all {
            problems.add_weighed("Pod", "Closed", *text, *weight);
        }
        problems
    }

    #[test]
    fn a_problem_is_told_once_and_again_when_it_weighs_more() {
        use Weight::{Note, Passing, Warning};
        let newly = |weight, before: &[(&str, Weight)]| {
            let one = problems(&[("a", weight)]);
            one.newly(&problems(before)).values().copied().next()
        };
        assert_eq!(newly(Passing, &[]), Some(Passing));
        assert_eq!(newly(Passing, &[("b", Warning)]), Some(Passing));
        assert_eq!(newly(Passing, &[("a", Passing)]), None);
        assert_eq!(newly(Warning, &[("a", Passing)]), Some(Warning));
        assert_eq!(newly(Warning, &[("a", Warning)]), None);
        assert_eq!(newly(Note, &[("a", Warning)]), None);
    }
}
