//! Problems of objects: told once when they come, and once when they are gone.

use std::collections::BTreeMap;

use tracing::{info, warn};
use weir_policy::problem::{Problem, Severity};

use crate::manifests::{Effect, Kind, ManifestProblem, Manifests, ObjectKey};

/// All problems that there are at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// Texts, and whether they are worth a warning.
    texts: BTreeMap<String, bool>,
    /// How many, by kind of object and of problem.
    pub counts: BTreeMap<(String, String), u64>,
}

impl Problems {
    /// `kind` of the object and `code` of the problem are labels of metrics.
    pub fn add(&mut self, kind: &str, code: impl Into<String>, text: impl Into<String>, is_warning: bool) {
        *self.counts.entry((kind.to_owned(), code.into())).or_default() += 1;
        self.texts.insert(text.into(), is_warning);
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

    /// Logs what was not so `before`, and what was and is not any more.
    pub fn log_changes(&self, before: &Self) {
        for (text, is_warning) in &self.texts {
            if !before.texts.contains_key(text) {
                if *is_warning {
                    warn!("{text}")
                } else {
                    info!("{text}")
                }
            }
        }
        for text in before.texts.keys() {
            if !self.texts.contains_key(text) {
                info!("no longer: {text}");
            }
        }
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
