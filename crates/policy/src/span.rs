//! Which nodes a policy concerns.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{IdentityKey, Relevance, keys};
use crate::model::{Namespaces, Policy, PolicyRef};
use crate::problem::{Code, Problem};
use crate::snapshot::Snapshot;

/// For each policy, the names of the nodes that host a pod which it selects. A policy that selects no scheduled pod has
/// an empty set.
#[must_use]
pub fn spans(
    policies: &BTreeMap<PolicyRef, Policy>,
    snapshot: &Snapshot,
) -> BTreeMap<PolicyRef, BTreeSet<String>> {
    let nodes = nodes_by_identity(&Relevance::of(policies.values()), snapshot);
    let mut namespaces = BTreeMap::<&str, Vec<&IdentityKey>>::new();
    for key in nodes.keys() {
        namespaces.entry(&key.namespace).or_default().push(key);
    }
    let span = |policy: &Policy| -> BTreeSet<String> {
        let candidates: Vec<&IdentityKey> = match &policy.subject.namespaces {
            Namespaces::Named(name) => namespaces
                .get(name.as_str())
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            Namespaces::Labelled(_) => nodes.keys().collect(),
        };
        let selected = candidates.into_iter().filter(|key| policy.subject.matches(key));
        selected
            .flat_map(|key| &nodes[key])
            .map(|node| (*node).to_owned())
            .collect()
    };
    policies
        .iter()
        .map(|(reference, policy)| (reference.clone(), span(policy)))
        .collect()
}

/// A note for each policy whose span is empty.
#[must_use]
pub fn selects_nothing(spans: &BTreeMap<PolicyRef, BTreeSet<String>>) -> Vec<Problem> {
    let empty = spans.iter().filter(|(_, nodes)| nodes.is_empty());
    empty
        .map(|(policy, _)| Problem {
            object: policy.into(),
            field: match policy.namespace {
                Some(_) => "spec.podSelector".to_owned(),
                None => "spec.subject".to_owned(),
            },
            code: Code::SelectsNothing,
            message: "no pod on any node is selected".to_owned(),
        })
        .collect()
}

fn nodes_by_identity<'a>(
    relevance: &Relevance,
    snapshot: &'a Snapshot,
) -> BTreeMap<IdentityKey, BTreeSet<&'a str>> {
    let mut nodes = BTreeMap::<IdentityKey, BTreeSet<&str>>::new();
    for (id, key) in keys(relevance, snapshot) {
        if let Some(pod) = snapshot.pods.get(id).filter(|pod| !pod.node.is_empty()) {
            nodes.entry(key).or_default().insert(&pod.node);
        }
    }
    nodes
}
