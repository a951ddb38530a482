//! From what people and the cluster say to what the nodes are to hold.
//!
//! The answer depends on what is, not on how it came about. Only numbers of identities, and what a node may still go
//! by, are taken over from what was written before.

mod numbers;
mod retention;
mod slices;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use weir_api::address_slice::AddressSliceSpec;
use weir_api::identity_slice::NamespaceIdentities;
use weir_api::node_dataplane::NodeDataplaneSpec;
use weir_policy::identity::{IdentityKey, Relevance, keys};
use weir_policy::lower;
use weir_policy::model::{Policy, PolicyRef};
use weir_policy::problem::Problem;
use weir_policy::snapshot::PodId;

use crate::cluster::Cluster;
use crate::digest::{Digest, digest, digest_named};
use crate::existing::{Contents, Existing, Held, to_api, widen};
use crate::settings::{Settings, settings};

pub use numbers::{FIRST_NUMBER_OF_AGENTS, book};

/// The largest NodeDataplane spec that is written, in bytes of JSON. An API server refuses requests of more than
/// 1.5 MiB with etcd's default limit (`--max-request-bytes`).
pub const MOST_SPEC_BYTES: usize = 1_468_006;

/// Everything that is to be written, but for revisions.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub identity_slices: BTreeMap<String, Vec<NamespaceIdentities>>,
    /// With revision 0.
    pub address_slices: BTreeMap<String, AddressSliceSpec>,
    /// The last number that was given to an identity.
    pub last_number: u32,
    pub nodes: BTreeMap<String, WantedNode>,
    pub policies: BTreeMap<PolicyRef, WantedPolicy>,
    pub flow_logs: BTreeMap<String, WantedFlowLog>,
    pub settings: Settings,
    /// Something stays in the book only until nodes have acknowledged what was written.
    pub waits_for_nodes: bool,
    /// Sorted.
    pub problems: Vec<Problem>,
}

/// A lowered policy, and where it belongs.
#[derive(Debug, Clone)]
pub struct WantedPolicy {
    pub value: Value,
    pub digest: Digest,
    /// Of its JSON.
    pub bytes: usize,
    pub looks_at: Relevance,
    /// The nodes that host a pod which it selects.
    pub nodes: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub struct WantedFlowLog {
    pub value: Value,
    pub digest: Digest,
    pub bytes: usize,
}

#[derive(Debug, Clone)]
pub struct WantedNode {
    pub contents: Contents,
    pub policies: BTreeSet<PolicyRef>,
    /// Of the spec's JSON, nearly.
    pub bytes: usize,
}

impl WantedNode {
    /// Too large to be written.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.bytes > MOST_SPEC_BYTES
    }
}

/// Plans for the whole cluster.
#[must_use]
pub fn plan(cluster: &Cluster, existing: &Existing) -> Wanted {
    let snapshot = &cluster.snapshot;
    let lowered = lower(snapshot);
    let needed = Relevance::of(lowered.policies.values());
    let mut relevance = needed.clone();
    widen(&mut relevance, &retention::relevance_in_use(cluster, existing));
    let others = retention::other_relevances(cluster, existing, &relevance);

    let keys = keys(&relevance, snapshot);
    let distinct: BTreeSet<&IdentityKey> = keys.values().collect();
    let known = numbers::existing_numbers(existing);
    let numbers = numbers::Numbers::assign(&known, existing, distinct.iter().copied());
    let pods: BTreeMap<&PodId, u32> = keys
        .iter()
        .filter_map(|(id, key)| Some((*id, numbers.get(key)?)))
        .collect();
    let mut identities = retention::retained(cluster, existing, &numbers, &others);
    let passing = identities.keys().any(|key| !distinct.contains(key));
    identities.extend(distinct.iter().filter_map(|key| Some((*key, numbers.get(key)?))));
    let relevances = others.iter().map(|(other, _)| *other).chain([&relevance]);
    let namespace_labels = slices::namespace_labels(relevances, &lowered.flow_logs);

    let spread = spread::spread(&lowered.policies, &keys, snapshot);
    let settings = settings(cluster);
    let mut wanted = Wanted {
        identity_slices: slices::identity_slices(snapshot, &identities, &namespace_labels),
        address_slices: slices::address_slices(cluster, &pods),
        last_number: numbers.last,
        nodes: BTreeMap::new(),
        policies: wanted_policies(&lowered.policies, &spread),
        flow_logs: lowered
            .flow_logs
            .iter()
            .map(|(name, log)| (name.clone(), wanted_flow_log(name, log)))
            .collect(),
        settings,
        waits_for_nodes: passing || relevance != needed,
        problems: lowered.problems,
    };
    wanted.nodes = wanted_nodes(cluster, &wanted, &Arc::new(relevance), &spread, &numbers);
    wanted
}

fn wanted_policies(
    policies: &BTreeMap<PolicyRef, Policy>,
    spread: &spread::Spread<'_>,
) -> BTreeMap<PolicyRef, WantedPolicy> {
    let wanted = policies.iter().map(|(reference, policy)| {
        // A policy is made of structs, lists and texts: it always is JSON.
        let value = serde_json::to_value(policy).unwrap_or_default();
        let nodes = spread.policies.get(reference).into_iter().flatten();
        let policy = WantedPolicy {
            digest: digest(&value),
            bytes: value.to_string().len(),
            value,
            looks_at: Relevance::of([policy]),
            nodes: nodes.map(|node| (*node).to_owned()).collect(),
        };
        (reference.clone(), policy)
    });
    wanted.collect()
}

fn wanted_flow_log(name: &str, log: &weir_policy::lower::FlowLog) -> WantedFlowLog {
    let value = serde_json::to_value(log).unwrap_or_default();
    WantedFlowLog {
        digest: digest_named(name, &value),
        bytes: value.to_string().len() + name.len(),
        value,
    }
}

fn wanted_nodes(
    cluster: &Cluster,
    wanted: &Wanted,
    relevance: &Arc<Relevance>,
    spread: &spread::Spread<'_>,
    numbers: &numbers::Numbers<'_>,
) -> BTreeMap<String, WantedNode> {
    let flow_logs: BTreeSet<Digest> = wanted.flow_logs.values().map(|log| log.digest).collect();
    let names = [
        &relevance.pod_labels,
        &relevance.namespace_labels,
        &relevance.named_ports,
    ];
    let relevance_bytes: usize = names.into_iter().flatten().map(|name| name.len() + 3).sum();
    let log_bytes: usize = wanted.flow_logs.values().map(|log| log.bytes + 5).sum();
    let nodes = cluster.snapshot.nodes.keys().map(|name| {
        let share = spread.nodes.get(name.as_str()).cloned().unwrap_or_default();
        let covers: BTreeSet<u32> = share
            .identities
            .iter()
            .filter_map(|key| numbers.get(key))
            .collect();
        let policies: Vec<(&PolicyRef, &WantedPolicy)> = share
            .policies
            .iter()
            .filter_map(|policy| wanted.policies.get_key_value(*policy))
            .collect();
        let settings = wanted.settings.nodes.get(name).cloned().unwrap_or_default();
        let policy_bytes: usize = policies.iter().map(|(_, policy)| policy.bytes + 1).sum();
        let node = WantedNode {
            bytes: policy_bytes
                + log_bytes
                + relevance_bytes
                + 11 * covers.len()
                + settings.to_string().len()
                + 256,
            contents: Contents {
                relevance: Arc::clone(relevance),
                covers,
                policies: policies.iter().map(|(_, policy)| policy.digest).collect(),
                flow_logs: flow_logs.clone(),
                settings: crate::existing::settings_digest(&settings),
            },
            policies: policies
                .into_iter()
                .map(|(reference, _)| reference.clone())
                .collect(),
        };
        (name.clone(), node)
    });
    nodes.collect()
}

impl Wanted {
    /// A node's spec; `None` for a node that is not in the plan.
    #[must_use]
    pub fn spec(&self, node: &str, address_book: i64) -> Option<NodeDataplaneSpec> {
        let wanted = self.nodes.get(node)?;
        let policies = wanted
            .policies
            .iter()
            .filter_map(|policy| self.policies.get(policy));
        let flow_logs = self.flow_logs.iter();
        let settings = self.settings.nodes.get(node).cloned().unwrap_or_default();
        Some(NodeDataplaneSpec {
            address_book,
            relevance: to_api(&wanted.contents.relevance),
            covers: wanted.contents.covers.iter().copied().collect(),
            policies: policies.map(|policy| policy.value.clone()).collect(),
            flow_logs: flow_logs
                .map(|(name, log)| (name.clone(), log.value.clone()))
                .collect(),
            // It was made from settings.
            settings: serde_json::from_value(settings).unwrap_or_default(),
        })
    }

    /// What [`Held::read`] makes of a node's spec.
    #[must_use]
    pub fn held(&self, node: &str, address_book: i64) -> Option<Held> {
        let wanted = self.nodes.get(node)?;
        let mut needs = Relevance::default();
        for policy in wanted.policies.iter().filter_map(|name| self.policies.get(name)) {
            widen(&mut needs, &policy.looks_at);
        }
        Some(Held {
            address_book,
            contents: wanted.contents.clone(),
            needs,
        })
    }
}
