//! NetworkPolicy and ClusterNetworkPolicy.

use weir_policy::model::PolicyRef;
use weir_policy::problem::ObjectRef;

use super::{Facts, Outcome, Standing, Status, Subject, accepted, standing};
use crate::cluster::Written;

pub(super) fn network_policies(facts: Facts<'_>) -> Vec<Status> {
    let policies = facts.cluster.network_policies.iter().map(|(name, written)| {
        let reference = PolicyRef::network_policy(&name.namespace, &name.name);
        let (outcomes, nodes) = outcomes(facts, &reference, written);
        status(
            Subject::NetworkPolicy(name.clone()),
            written,
            outcomes,
            Some(nodes),
        )
    });
    policies.collect()
}

pub(super) fn cluster_network_policies(facts: Facts<'_>) -> Vec<Status> {
    let policies = facts
        .cluster
        .cluster_network_policies
        .iter()
        .map(|(name, written)| {
            let (outcomes, _) = outcomes(facts, &PolicyRef::cluster_network_policy(name), written);
            status(
                Subject::ClusterNetworkPolicy(name.clone()),
                written,
                outcomes,
                None,
            )
        });
    policies.collect()
}

fn status(subject: Subject, written: &Written, outcomes: Vec<Outcome>, nodes: Option<String>) -> Status {
    Status {
        subject,
        uid: written.uid.clone(),
        generation: written.generation,
        outcomes,
        nodes,
    }
}

fn outcomes(facts: Facts<'_>, reference: &PolicyRef, written: &Written) -> (Vec<Outcome>, String) {
    let accepted = accepted(&ObjectRef::from(reference), written, &facts.wanted.problems);
    let standing = match facts.wanted.policies.get(reference) {
        Some(policy) => standing(facts, &policy.nodes, |_, contents| {
            contents.policies.contains(&policy.digest)
        }),
        None => Standing::default(),
    };
    let programmed = standing.programmed(("SelectsNothing", "no pod on any node is selected"));
    (vec![accepted, programmed], standing.count())
}
