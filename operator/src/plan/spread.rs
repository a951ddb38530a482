//! Which policies, and which identities, belong on which node.

use std::collections::{BTreeMap, BTreeSet};

use weir_policy::identity::IdentityKey;
use weir_policy::model::{Namespaces, Policy, PolicyRef};
use weir_policy::snapshot::{PodId, Snapshot};

#[derive(Debug, Default)]
pub(super) struct Spread<'a> {
    /// The nodes that host a pod which the policy selects.
    pub(super) policies: BTreeMap<&'a PolicyRef, BTreeSet<&'a str>>,
    pub(super) nodes: BTreeMap<&'a str, Share<'a>>,
}

/// What belongs on a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Share<'a> {
    pub(super) identities: BTreeSet<&'a IdentityKey>,
    pub(super) policies: BTreeSet<&'a PolicyRef>,
}

/// The keys cover what the policies look at.
pub(super) fn spread<'a>(
    policies: &'a BTreeMap<PolicyRef, Policy>,
    keys: &'a BTreeMap<&'a PodId, IdentityKey>,
    snapshot: &'a Snapshot,
) -> Spread<'a> {
    let mut nodes = BTreeMap::<&IdentityKey, BTreeSet<&str>>::new();
    for (id, key) in keys {
        if let Some(pod) = snapshot.pods.get(*id).filter(|pod| !pod.node.is_empty()) {
            nodes.entry(key).or_default().insert(&pod.node);
        }
    }
    let subjects = Subjects::new(policies);
    let mut spread = Spread::default();
    for (key, nodes) in nodes {
        let selecting = subjects.selecting(key);
        for policy in &selecting {
            spread.policies.entry(policy).or_default().extend(&nodes);
        }
        for node in nodes {
            let share = spread.nodes.entry(node).or_default();
            share.identities.insert(key);
            share.policies.extend(&selecting);
        }
    }
    spread
}

/// Finds the policies that select an identity, without asking those of other namespaces.
struct Subjects<'a> {
    by_namespace: BTreeMap<&'a str, Vec<(&'a PolicyRef, &'a Policy)>>,
    by_label: Vec<(&'a PolicyRef, &'a Policy)>,
}

impl<'a> Subjects<'a> {
    fn new(policies: &'a BTreeMap<PolicyRef, Policy>) -> Self {
        let mut subjects = Self {
            by_namespace: BTreeMap::new(),
            by_label: Vec::new(),
        };
        for (reference, policy) in policies {
            let list = match &policy.subject.namespaces {
                Namespaces::Named(name) => subjects.by_namespace.entry(name).or_default(),
                Namespaces::Labelled(_) => &mut subjects.by_label,
            };
            list.push((reference, policy));
        }
        subjects
    }

    fn selecting(&self, key: &IdentityKey) -> Vec<&'a PolicyRef> {
        let of_namespace = self.by_namespace.get(key.namespace.as_str());
        let candidates = of_namespace.into_iter().flatten().chain(&self.by_label);
        let selecting = candidates.filter(|(_, policy)| policy.subject.matches(key));
        selecting.map(|(reference, _)| *reference).collect()
    }
}
