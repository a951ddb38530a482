//! From what the maps hold to what they should hold, in the one safe order.
//!
//! After every single step, each pod is under one whole policy, the old one or the new one; an address is never taken
//! for somebody whom the policy in force does not know, where it knew the address before; and nothing that a Service
//! or an entry points to is missing. If the agent dies between two steps, that state stays, and the next one goes on
//! from there.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::address::{Address, AddressValue, CidrKey, UNKNOWN_IDENTITY};
use weir_abi::policy::{CIDR_PEER, NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;

use crate::contents::Contents;

/// One step. Each goes to one map; a step of many entries may stop half-way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    WriteNumbers(Vec<(NumberKey, NumberValue)>),
    WritePorts(Vec<(PortKey, PortValue)>),
    WriteBackends(Vec<(u32, Backend)>),
    WritePolicy(Vec<(PolicyKey, PolicyValue)>),
    WriteAddresses(Vec<(Address, AddressValue)>),
    WriteCidrs(Vec<(CidrKey, u32)>),
    WriteWorkloads(Vec<(Address, Workload)>),
    WriteServices(Vec<(ServiceKey, ServiceValue)>),
    DeleteServices(Vec<ServiceKey>),
    DeleteWorkloads(Vec<Address>),
    DeleteAddresses(Vec<Address>),
    DeleteCidrs(Vec<CidrKey>),
    /// Connections are decided anew from here on.
    RaiseRevision,
    DeletePolicy(Vec<PolicyKey>),
    DeletePorts(Vec<PortKey>),
    DeleteBackends(Vec<u32>),
    DeleteNumbers(Vec<NumberKey>),
}

/// The steps from `actual` to `desired`; none where they are equal.
///
/// `desired` must have been chosen with this `actual` in view, as [`desired`](crate::desired::desired) does.
#[must_use]
pub fn transition(actual: &Contents, desired: &Contents) -> Vec<Step> {
    let passing = passing_entries(actual, desired);
    let (moved, arrived) = split(actual, desired);
    let mut steps = vec![
        // What others point to.
        Step::WriteNumbers(changed(&actual.numbers, &desired.numbers)),
        Step::WritePorts(changed(&actual.ports, &desired.ports)),
        Step::WriteBackends(changed(&actual.backends, &desired.backends)),
        Step::WritePolicy(changed(&actual.policy, &desired.policy)),
        Step::WritePolicy(passing.iter().map(|(key, value)| (*key, *value)).collect()),
        // Who is who: under the old policies first, which `passing` has taught the new names.
        Step::WriteAddresses(moved),
        Step::WriteWorkloads(renamed(&actual.workloads, &desired.workloads)),
        Step::WriteCidrs(changed(&actual.cidrs, &desired.cidrs)),
        // Pod by pod, the new policies.
        Step::WriteWorkloads(replaced(&actual.workloads, &desired.workloads)),
        // Who was not there before: known as a peer, then let in.
        Step::WriteAddresses(arrived),
        Step::WriteWorkloads(added(&actual.workloads, &desired.workloads)),
        Step::WriteServices(changed(&actual.services, &desired.services)),
        Step::DeleteServices(removed(&actual.services, &desired.services)),
        Step::DeleteWorkloads(removed(&actual.workloads, &desired.workloads)),
        Step::DeleteAddresses(removed(&actual.addresses, &desired.addresses)),
        Step::DeleteCidrs(removed(&actual.cidrs, &desired.cidrs)),
    ];
    steps.retain(|step| !step.is_empty());
    if steps.iter().any(Step::changes_decisions) {
        steps.push(Step::RaiseRevision);
    }
    let mut policy = removed(&actual.policy, &desired.policy);
    policy.extend(passing.keys().filter(|key| !desired.policy.contains_key(key)));
    let cleaning = [
        // What nobody points to any more.
        Step::DeletePolicy(policy),
        Step::DeletePorts(removed(&actual.ports, &desired.ports)),
        Step::DeleteBackends(removed(&actual.backends, &desired.backends)),
        Step::DeleteNumbers(removed(&actual.numbers, &desired.numbers)),
    ];
    steps.extend(cleaning.into_iter().filter(|step| !step.is_empty()));
    steps
}

impl Step {
    /// Number of entries written or removed.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::WriteNumbers(entries) => entries.len(),
            Self::WritePorts(entries) => entries.len(),
            Self::WriteBackends(entries) => entries.len(),
            Self::WritePolicy(entries) => entries.len(),
            Self::WriteAddresses(entries) => entries.len(),
            Self::WriteCidrs(entries) => entries.len(),
            Self::WriteWorkloads(entries) => entries.len(),
            Self::WriteServices(entries) => entries.len(),
            Self::DeleteServices(keys) => keys.len(),
            Self::DeleteWorkloads(keys) | Self::DeleteAddresses(keys) => keys.len(),
            Self::DeleteCidrs(keys) => keys.len(),
            Self::RaiseRevision => 1,
            Self::DeletePolicy(keys) => keys.len(),
            Self::DeletePorts(keys) => keys.len(),
            Self::DeleteBackends(keys) => keys.len(),
            Self::DeleteNumbers(keys) => keys.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a connection may be decided otherwise after the step. Services are not decided by policy: a live
    /// connection keeps its backend.
    fn changes_decisions(&self) -> bool {
        match self {
            Self::WritePolicy(_)
            | Self::WriteAddresses(_)
            | Self::WriteCidrs(_)
            | Self::WriteWorkloads(_)
            | Self::DeleteWorkloads(_)
            | Self::DeleteAddresses(_)
            | Self::DeleteCidrs(_) => true,
            Self::WriteNumbers(_)
            | Self::WritePorts(_)
            | Self::WriteBackends(_)
            | Self::WriteServices(_)
            | Self::DeleteServices(_)
            | Self::RaiseRevision
            | Self::DeletePolicy(_)
            | Self::DeletePorts(_)
            | Self::DeleteBackends(_)
            | Self::DeleteNumbers(_) => false,
        }
    }
}

/// Entries by which the policies that are about to go know the peers that are about to come under new names: what
/// held under the old name holds under the new one.
fn passing_entries(actual: &Contents, desired: &Contents) -> BTreeMap<PolicyKey, PolicyValue> {
    let staying: BTreeSet<u32> = desired.policy.keys().map(|key| key.side).collect();
    let going: BTreeSet<u32> =
        actual.policy.keys().map(|key| key.side).filter(|side| !staying.contains(side)).collect();
    let mut entries = BTreeMap::new();
    if going.is_empty() {
        return entries;
    }
    for (old, new) in renames(actual, desired) {
        for side in &going {
            let key = PolicyKey { side: *side, peer: new };
            if !actual.policy.contains_key(&key)
                && let Some(value) = actual.policy.get(&PolicyKey { side: *side, peer: old })
            {
                entries.insert(key, *value);
            }
        }
    }
    entries
}

/// Peers and what they will be called.
fn renames(actual: &Contents, desired: &Contents) -> BTreeSet<(u32, u32)> {
    let addresses = actual.addresses.iter().filter_map(|(address, value)| {
        Some((value.identity, desired.addresses.get(address)?.identity))
    });
    let workloads = actual.workloads.iter().filter_map(|(address, value)| {
        Some((value.identity, desired.workloads.get(address)?.identity))
    });
    let cidrs = desired.cidrs.iter().filter(|(key, _)| !actual.cidrs.contains_key(*key)).filter_map(
        |(key, number)| Some((CIDR_PEER | longest_around(&actual.cidrs, *key)?, CIDR_PEER | number)),
    );
    addresses
        .chain(workloads)
        .chain(cidrs)
        .filter(|(old, new)| old != new && *old != UNKNOWN_IDENTITY && *new != UNKNOWN_IDENTITY)
        .collect()
}

/// The number of the longest CIDR that contains `key`, itself excepted.
fn longest_around(cidrs: &BTreeMap<CidrKey, u32>, key: CidrKey) -> Option<u32> {
    let address = u128::from_be_bytes(Address(key.address).octets());
    (0..key.prefix_len).rev().find_map(|prefix_len| {
        let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
        let octets = (address & mask).to_be_bytes();
        cidrs.get(&CidrKey { prefix_len, address: Address::from_octets(octets).0 }).copied()
    })
}

type Entries<K, V> = Vec<(K, V)>;

/// Addresses that change hands, and those that had no owner.
fn split(
    actual: &Contents,
    desired: &Contents,
) -> (Entries<Address, AddressValue>, Entries<Address, AddressValue>) {
    changed(&actual.addresses, &desired.addresses)
        .into_iter()
        .partition(|(address, _)| actual.addresses.contains_key(address))
}

/// Workloads that are there, under their new identity and everything else as before.
fn renamed(
    actual: &BTreeMap<Address, Workload>,
    desired: &BTreeMap<Address, Workload>,
) -> Entries<Address, Workload> {
    let renamed = actual.iter().filter_map(|(address, old)| {
        let identity = desired.get(address)?.identity;
        (identity != old.identity).then_some((*address, Workload { identity, ..*old }))
    });
    renamed.collect()
}

fn replaced<K: Copy + Ord, V: Copy + Eq>(
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> Entries<K, V> {
    changed(actual, desired).into_iter().filter(|(key, _)| actual.contains_key(key)).collect()
}

fn added<K: Copy + Ord, V: Copy + Eq>(actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Entries<K, V> {
    changed(actual, desired).into_iter().filter(|(key, _)| !actual.contains_key(key)).collect()
}

fn changed<K: Copy + Ord, V: Copy + Eq>(actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Entries<K, V> {
    let changed = desired.iter().filter(|(key, value)| actual.get(key) != Some(value));
    changed.map(|(key, value)| (*key, *value)).collect()
}

fn removed<K: Copy + Ord, V>(actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Vec<K> {
    actual.keys().filter(|key| !desired.contains_key(key)).copied().collect()
}
