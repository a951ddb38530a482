//! A snapshot taken through every step for each of its nodes, as the operator and the agents do it together.
//!
//! For tests that hold the outcome against the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::evaluate::{Answer, End, Facts, Judgement, evaluate};
use crate::identity::{IdentityKey, Relevance, keys};
use crate::lower::{Lowered, lower};
use crate::oracle;
use crate::order::Ruling;
use crate::resolve::resolve;
use crate::resolved::{Flow, IdentityNumber, Resolved};
use crate::snapshot::{Pod, PodId, Snapshot};

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub snapshot: Snapshot,
    pub lowered: Lowered,
    pub keys: BTreeMap<PodId, IdentityKey>,
    pub identities: BTreeMap<IdentityKey, IdentityNumber>,
    /// By node.
    pub resolved: BTreeMap<String, Resolved>,
}

impl Cluster {
    /// Numbers the identities from 1 in their order.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self::numbered(snapshot, |index| index + 1)
    }

    /// `number` gives the identity of an index its number. Numbers are distinct and not 0.
    #[must_use]
    pub fn numbered(snapshot: Snapshot, number: impl Fn(u32) -> IdentityNumber) -> Self {
        let lowered = lower(&snapshot);
        let relevance = Relevance::of(lowered.policies.values());
        let keys: BTreeMap<PodId, IdentityKey> = keys(&relevance, &snapshot)
            .into_iter()
            .map(|(id, key)| (id.clone(), key))
            .collect();
        let distinct: BTreeSet<&IdentityKey> = keys.values().collect();
        let identities: BTreeMap<IdentityKey, IdentityNumber> = distinct
            .into_iter()
            .zip(0..)
            .map(|(key, index)| (key.clone(), number(index)))
            .collect();
        let resolved = snapshot.nodes.keys().map(|node| {
            let local = |id: &&PodId| snapshot.pods.get(*id).is_some_and(|pod| pod.node == *node);
            let local = keys
                .keys()
                .filter(local)
                .map(|id| (id.clone(), keys[id].clone()))
                .collect();
            (node.clone(), resolve(&lowered.policies, &identities, &local))
        });
        let resolved = resolved.collect();
        Self {
            snapshot,
            lowered,
            keys,
            identities,
            resolved,
        }
    }

    /// Judges a flow at both of its ends, each on its own node, in the form of the oracle's answer.
    #[must_use]
    pub fn answer(&self, flow: &Flow) -> oracle::Answer {
        let at = |address| self.pod_at(address).map(|(_, pod)| pod.node.as_str());
        let on = |node: Option<&str>| {
            let resolved = self.resolved.get(node?)?;
            Some((resolved, evaluate(resolved, flow, &self.facts(node?, flow))))
        };
        let read = |side: Option<(&Resolved, Answer)>, judgement: fn(Answer) -> Option<Judgement>| {
            side.and_then(|(resolved, answer)| Some(spelled_out(resolved, judgement(answer)?)))
        };
        oracle::Answer {
            egress: read(on(at(flow.source)), |answer| answer.egress),
            ingress: read(on(at(flow.destination)), |answer| answer.ingress),
        }
    }

    /// What a node knows of a flow.
    #[must_use]
    pub fn facts(&self, node: &str, flow: &Flow) -> Facts {
        let end = |address| match self.pod_at(address) {
            Some((id, pod)) => End {
                local: (pod.node == node).then(|| id.clone()),
                identity: self
                    .keys
                    .get(id)
                    .and_then(|key| self.identities.get(key))
                    .copied(),
            },
            None => End::default(),
        };
        let node_has = |address| {
            self.snapshot
                .nodes
                .get(node)
                .is_some_and(|node| node.addresses.contains(&address))
        };
        let (source, destination) = (end(flow.source), end(flow.destination));
        let same_pod = source.local.is_some() && source.local == destination.local;
        let own_node = (source.local.is_some() && node_has(flow.destination))
            || (destination.local.is_some() && node_has(flow.source));
        Facts {
            exempt: same_pod || own_node,
            source,
            destination,
        }
    }

    fn pod_at(&self, address: IpAddr) -> Option<(&PodId, &Pod)> {
        let mut pods = self.snapshot.pods.iter();
        pods.find(|(_, pod)| pod.is_on_pod_network() && pod.addresses.contains(&address))
    }
}

fn spelled_out(resolved: &Resolved, judgement: Judgement) -> oracle::Judgement {
    let ruling = |ruling: Ruling| oracle::Ruling {
        verdict: ruling.verdict,
        causes: ruling
            .cause
            .map(|cause| resolved.causes[cause as usize].clone())
            .into_iter()
            .collect(),
    };
    oracle::Judgement {
        enforced: ruling(judgement.enforced),
        dry_run: ruling(judgement.dry_run),
    }
}

/// Whether an answer is one that the oracle accepts: the same verdicts, and causes that are among its causes.
#[must_use]
pub fn is_accepted(answer: &oracle::Answer, expected: &oracle::Answer) -> bool {
    let ruling = |answer: &oracle::Ruling, expected: &oracle::Ruling| {
        answer.verdict == expected.verdict
            && answer.causes.is_empty() == expected.causes.is_empty()
            && answer.causes.is_subset(&expected.causes)
    };
    let judgement = |pair: (&Option<oracle::Judgement>, &Option<oracle::Judgement>)| match pair {
        (Some(answer), Some(expected)) => {
            ruling(&answer.enforced, &expected.enforced) && ruling(&answer.dry_run, &expected.dry_run)
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    judgement((&answer.egress, &expected.egress)) && judgement((&answer.ingress, &expected.ingress))
}
