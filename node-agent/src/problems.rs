//! Problems of objects: told once when they come, and once when they are gone.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use weir_policy::problem::{Problem, Severity};

use crate::manifests::{Effect, Kind, ManifestProblem, Manifests, ObjectKey};

#[derive(Debug, Default)]
pub struct Problems {
    /// Texts, and whether they are worth a warning.
    known: BTreeMap<String, bool>,
}

impl Problems {
    /// How many there are, by kind of object and of problem. `overruled` are the FlowLogPolicies whose settings of the log do not hold.
    pub fn tell(
        &mut self,
        manifests: &Manifests,
        of_manifests: &[ManifestProblem],
        of_policies: &[Problem],
        overruled: &[String],
    ) -> BTreeMap<(String, String), u64> {
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut count = |kind: &str, code: String| {
            *counts.entry((kind.to_owned(), code)).or_default() += 1;
        };
        let mut texts = BTreeMap::new();
        for problem in of_manifests {
            let kind = problem.object.as_ref().map_or("", |object| object.kind.word());
            count(kind, problem.code.to_string());
            texts.insert(problem.to_string(), problem.effect != Effect::Noted);
        }
        for problem in of_policies {
            count(&problem.object.kind, format!("{:?}", problem.code));
            texts.insert(placed(manifests, problem), problem.severity() != Severity::Note);
        }
        for name in overruled {
            count(Kind::FlowLogPolicy.word(), "SettingsOverruled".to_owned());
            let text = format!(
                "FlowLogPolicy {name}: a node has one log, and a policy whose name comes before says how it is \
                 written"
            );
            texts.insert(text, true);
        }
        self.log_changes(&texts);
        self.known = texts;
        counts
    }

    fn log_changes(&self, texts: &BTreeMap<String, bool>) {
        for (text, is_warning) in texts {
            if !self.known.contains_key(text) {
                if *is_warning {
                    warn!("{text}")
                } else {
                    info!("{text}")
                }
            }
        }
        let gone: BTreeSet<&String> = self
            .known
            .keys()
            .filter(|text| !texts.contains_key(*text))
            .collect();
        for text in gone {
            info!("no longer: {text}");
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
    let name = match &object.namespace {
        Some(namespace) => format!("{} {namespace}/{}", object.kind, object.name),
        None => format!("{} {}", object.kind, object.name),
    };
    match origin {
        Some(origin) => format!("{origin}: {name}: {text}"),
        None => format!("{name}: {text}"),
    }
}
