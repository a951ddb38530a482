//! What of the address book must stay because a node's kernel may still go by it.
//!
//! A node reads the book under the relevance of the spec that its kernel holds. Until it has said that this is the spec
//! that was written last, it may be any spec between the last one that it acknowledged and that one.

use std::collections::{BTreeMap, BTreeSet};

use weir_policy::identity::{IdentityKey, Relevance};
use weir_policy::snapshot::PodId;

use super::numbers::Numbers;
use crate::cluster::Cluster;
use crate::existing::{Existing, ExistingNode, widen};

/// The nodes of the cluster that have a NodeDataplane.
fn nodes<'a>(cluster: &Cluster, existing: &'a Existing) -> impl Iterator<Item = (&'a str, &'a ExistingNode)> {
    let names = existing.nodes.iter().map(|(name, node)| (name.as_str(), node));
    names.filter(|(name, _)| cluster.nodes.contains_key(*name))
}

/// Whether the node's kernel may hold a spec that is not the current one.
fn may_be_behind(cluster: &Cluster, name: &str, node: &ExistingNode) -> bool {
    !node.is_current() && (node.report.present || cluster.agents.contains(name))
}

/// What the policies look at that some node's kernel holds or is about to. Addresses keep identities that tell apart
/// what these tell apart.
#[must_use]
pub(super) fn relevance_in_use(cluster: &Cluster, existing: &Existing) -> Relevance {
    let mut relevance = Relevance::default();
    for (name, node) in nodes(cluster, existing) {
        widen(&mut relevance, &node.current.needs);
        if let Some(attempted) = &node.attempted {
            widen(&mut relevance, &attempted.needs);
        }
        // At the time when a spec was written, its relevance included that of every spec before it which some node
        // had not gone beyond.
        if may_be_behind(cluster, name, node) {
            widen(&mut relevance, &node.current.contents.relevance);
            if let Some((_, acknowledged)) = &node.acknowledged {
                widen(&mut relevance, &acknowledged.needs);
            }
        }
    }
    relevance
}

/// The relevances other than `relevance` under which some node may look its own pods up.
#[must_use]
pub(super) fn other_relevances<'a>(
    cluster: &Cluster,
    existing: &'a Existing,
    relevance: &Relevance,
) -> Vec<(&'a Relevance, BTreeSet<&'a str>)> {
    let mut others = Vec::<(&Relevance, BTreeSet<&str>)>::new();
    let mut add = |other: &'a Relevance, name: &'a str| {
        if other == relevance {
            return;
        }
        match others.iter_mut().find(|(known, _)| *known == other) {
            Some((_, names)) => {
                names.insert(name);
            }
            None => others.push((other, BTreeSet::from([name]))),
        }
    };
    for (name, node) in nodes(cluster, existing) {
        add(&node.current.contents.relevance, name);
        if let Some(attempted) = &node.attempted {
            add(&attempted.contents.relevance, name);
        }
        if let Some((_, acknowledged)) = &node.acknowledged
            && may_be_behind(cluster, name, node)
        {
            add(&acknowledged.contents.relevance, name);
        }
    }
    others
}

/// The identities that exist and that no pod has any more under the relevance of the book, but that a node may look up
/// or an address may still carry.
#[must_use]
pub(super) fn retained<'a>(
    cluster: &Cluster,
    existing: &Existing,
    numbers: &Numbers<'a>,
    others: &[(&Relevance, BTreeSet<&str>)],
) -> BTreeMap<&'a IdentityKey, u32> {
    let mut retained = BTreeMap::new();
    let carried: BTreeSet<u32> = existing
        .address_slices
        .values()
        .flat_map(|slice| &slice.spec.pods)
        .map(|pod| pod.identity)
        .collect();
    let unknown = namespaces_of_unknown_nodes(cluster, existing);
    for (key, number) in numbers.existing() {
        if carried.contains(&number) || unknown.contains(key.namespace.as_str()) {
            retained.insert(key, number);
        }
    }
    if others.is_empty() {
        return retained;
    }
    for (id, pod) in &cluster.snapshot.pods {
        let others = others
            .iter()
            .filter(|(_, nodes)| nodes.contains(pod.node.as_str()));
        for (relevance, _) in others {
            let key = relevance.key(&cluster.snapshot, id, pod);
            if let Some((key, number)) = key.and_then(|key| numbers.get_existing(&key)) {
                retained.insert(key, number);
            }
        }
    }
    retained
}

/// The namespaces of the pods on nodes whose kernels hold a spec that this operator has never seen.
fn namespaces_of_unknown_nodes<'a>(cluster: &'a Cluster, existing: &Existing) -> BTreeSet<&'a str> {
    let unknown: BTreeSet<&str> = nodes(cluster, existing)
        .filter(|(name, node)| may_be_behind(cluster, name, node))
        .filter(|(_, node)| node.report.programmed_generation.is_some() && node.in_kernel().is_none())
        .map(|(name, _)| name)
        .collect();
    if unknown.is_empty() {
        return BTreeSet::new();
    }
    let pods = cluster.snapshot.pods.iter();
    let on_unknown = pods.filter(|(_, pod)| unknown.contains(pod.node.as_str()));
    on_unknown
        .map(|(id, _): (&PodId, _)| id.namespace.as_str())
        .collect()
}
