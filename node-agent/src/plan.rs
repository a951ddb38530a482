//! The operator's part, for one node: which policies there are, what identities the pods have, what holds for the
//! pods of this node. Standalone, the agent does it itself.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_abi::address::CidrKey;
use weir_abi::policy::{NumberKey, NumberValue, number_space};
use weir_policy::identity::{IdentityKey, Relevance, keys};
use weir_policy::lower::FlowLog;
use weir_policy::problem::Problem;
use weir_policy::resolved::{IdentityNumber, Resolved};
use weir_policy::snapshot::{PodId, Snapshot};
use weir_policy::span::{selects_nothing, spans};
use weir_policy::{lower, resolve};

use crate::numbers::{Digest, FIRST_PASSING_IDENTITY, assign, digest};

/// Everything that is known before an interface or a map is looked at.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub resolved: Resolved,
    /// Digest and number of every identity that some pod has.
    pub identity_numbers: BTreeMap<Digest, IdentityNumber>,
    /// The identity of every pod on the pod network, wherever it runs.
    pub pods: BTreeMap<PodId, IdentityNumber>,
    /// Whom each address belongs to.
    pub addresses: BTreeMap<IpAddr, Owner>,
    /// Ranges of addresses; of those that have no owner and no longer range around them, whether they are other nodes'
    /// pods.
    pub pod_ranges: BTreeMap<CidrKey, bool>,
    pub flow_logs: BTreeMap<String, FlowLog>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Pod(PodId),
    /// A pod of another node, of which nobody can tell the identity yet.
    SomePod,
    ThisNode,
    OtherNode(String),
}

/// Plans for `node`. `existing` are the numbers that were given before.
///
/// An address that two owners claim belongs to the node among them, or else to the pod that comes first by name.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str, existing: &BTreeMap<NumberKey, NumberValue>) -> Plan {
    let mut lowered = lower(snapshot);
    let relevance = Relevance::of(lowered.policies.values());
    let keys: BTreeMap<PodId, IdentityKey> = keys(&relevance, snapshot)
        .into_iter()
        .map(|(id, key)| (id.clone(), key))
        .collect();
    let distinct: BTreeMap<&IdentityKey, Digest> =
        keys.values().map(|key| (key, identity_digest(key))).collect();
    let wanted: BTreeSet<Digest> = distinct.values().copied().collect();
    // There are fewer pods than numbers.
    let identity_numbers = assign(
        existing,
        number_space::IDENTITY,
        &wanted,
        FIRST_PASSING_IDENTITY - 1,
    )
    .unwrap_or_default();
    let number = |key: &IdentityKey| identity_numbers[&distinct[key]];
    let identities: BTreeMap<IdentityKey, IdentityNumber> =
        distinct.keys().map(|key| ((*key).clone(), number(key))).collect();
    let is_local = |id: &PodId| snapshot.pods.get(id).is_some_and(|pod| pod.node == node);
    let local = keys
        .iter()
        .filter(|(id, _)| is_local(id))
        .map(|(id, key)| (id.clone(), key.clone()))
        .collect();
    let resolved = resolve(&lowered.policies, &identities, &local);
    lowered
        .problems
        .extend(selects_nothing(&spans(&lowered.policies, snapshot)));
    lowered.problems.sort();
    let (addresses, _) = owners(
        node,
        snapshot.nodes.iter().map(|(name, node)| (name, &node.addresses)),
        keys.keys().map(|id| (id, &snapshot.pods[id].addresses)),
    );
    Plan {
        resolved,
        pods: keys.iter().map(|(id, key)| (id.clone(), number(key))).collect(),
        addresses,
        // Every pod is in the manifests, or there is none.
        pod_ranges: BTreeMap::new(),
        flow_logs: lowered.flow_logs,
        problems: lowered.problems,
        identity_numbers,
    }
}

/// What an identity is known by in the kernel's map of numbers.
pub(crate) fn identity_digest(key: &IdentityKey) -> Digest {
    let mut parts = vec![key.namespace.clone()];
    for labels in [&key.pod_labels, &key.namespace_labels] {
        parts.push(labels.len().to_string());
        parts.extend(
            labels
                .iter()
                .flat_map(|(name, value)| [name.clone(), value.clone()]),
        );
    }
    for (name, ports) in &key.named_ports {
        parts.push(name.clone());
        parts.extend(
            ports
                .iter()
                .map(|(protocol, port)| format!("{}/{port}", protocol.number())),
        );
    }
    digest(parts.iter().map(String::as_str))
}

/// Who has each address: the node among those that claim it, or else the first of the pods. Of two pods, the second is
/// returned beside.
pub(crate) fn owners<'a>(
    this_node: &str,
    nodes: impl Iterator<Item = (&'a String, &'a Vec<IpAddr>)>,
    pods: impl Iterator<Item = (&'a PodId, &'a Vec<IpAddr>)>,
) -> (BTreeMap<IpAddr, Owner>, Vec<(IpAddr, &'a PodId)>) {
    let mut owners = BTreeMap::new();
    let mut second = Vec::new();
    for (name, addresses) in nodes {
        let owner = if name == this_node {
            Owner::ThisNode
        } else {
            Owner::OtherNode(name.clone())
        };
        for address in addresses {
            owners.entry(*address).or_insert_with(|| owner.clone());
        }
    }
    for (id, addresses) in pods {
        for address in addresses {
            match owners.entry(*address) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Owner::Pod(id.clone()));
                }
                Entry::Occupied(taken) => {
                    if matches!(taken.get(), Owner::Pod(_)) {
                        second.push((*address, id));
                    }
                }
            }
        }
    }
    (owners, second)
}
