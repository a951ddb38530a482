//! From what the maps hold to what they should hold, in the one safe order.
//!
//! After every single entry, each pod is under one whole policy, the old one or the new one, which says of every peer
//! what it says before or after all the steps, for the same cause; a pod that comes is under the new policy and one
//! that goes under the old one; and nothing that a Service or an entry points to is missing. If the agent dies on the
//! way, that state stays, and the next one goes on from there. The two ends of a connection change one after the
//! other, as they do on two nodes. Only an address whose range of pods comes or goes, and of which nothing else is
//! known, may be denied in between: nobody has it yet, or any more.

mod passing;

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::{Masquerade, POD_RANGE};
use weir_abi::policy::{NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;

use crate::contents::Contents;
use crate::desired::NOBODY;
use crate::trie::Identities;
use passing::Passing;

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
    WriteNonMasquerade(Vec<(CidrKey, u32)>),
    WriteMasquerade(Vec<(u32, Masquerade)>),
    DeleteMasquerade(Vec<u32>),
    DeleteNonMasquerade(Vec<CidrKey>),
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
    let passing = Passing::between(actual, desired);
    let addresses = passing_addresses(&passing, actual, desired);
    let named = passing_workloads(&passing, actual, desired, |old, _| *old);
    let under_new_policies = passing_workloads(&passing, actual, desired, |_, new| *new);
    let present: BTreeMap<Address, Workload> = with_desired(&under_new_policies, &desired.workloads);
    let cidrs = CidrChanges::between(&actual.cidrs, &desired.cidrs);
    let ranges = RangeChanges::between(&actual.non_masquerade, &desired.non_masquerade);
    let mut steps = vec![
        // What others point to.
        Step::WriteNumbers(changed(&actual.numbers, &desired.numbers)),
        Step::WritePorts(changed(&actual.ports, &desired.ports)),
        Step::WriteBackends(changed(&actual.backends, &desired.backends)),
        Step::WritePolicy(changed(&actual.policy, &desired.policy)),
        Step::WritePolicy(changed(&actual.policy, &passing.entries)),
        // A pod that goes is closed before anything else changes, and the others know it as before.
        Step::DeleteWorkloads(removed(&actual.workloads, &desired.workloads)),
        // A range of pods is closed, to those whom nobody knows, for as long as it is one before or after.
        Step::WriteNonMasquerade(ranges.early),
        // Who is who: under the old policies first, which know the names in passing.
        Step::WriteAddresses(changed(&actual.addresses, &addresses)),
        Step::DeleteAddresses(removed(&actual.addresses, &addresses)),
        Step::WriteWorkloads(changed(&actual.workloads, &named)),
        Step::WriteCidrs(cidrs.early),
        // Pod by pod, the new policies.
        Step::WriteWorkloads(changed(&named, &under_new_policies)),
        // What only the old policies knew, and names that were for the passage only.
        Step::WriteCidrs(cidrs.late),
        Step::DeleteCidrs(removed(&actual.cidrs, &desired.cidrs)),
        Step::WriteAddresses(changed(&addresses, &desired.addresses)),
        Step::DeleteAddresses(removed(&addresses, &desired.addresses)),
        Step::WriteWorkloads(changed(&under_new_policies, &present)),
        // Pods that come are let in when everybody knows them and nothing is in passing.
        Step::WriteWorkloads(changed(&present, &desired.workloads)),
        Step::WriteServices(changed(&actual.services, &desired.services)),
        Step::DeleteServices(removed(&actual.services, &desired.services)),
        // Who speaks as themselves goes on to while this begins, and while it ends.
        Step::WriteMasquerade(changed(&actual.masquerade, &desired.masquerade)),
        Step::DeleteMasquerade(removed(&actual.masquerade, &desired.masquerade)),
        Step::WriteNonMasquerade(ranges.late),
        Step::DeleteNonMasquerade(removed(&actual.non_masquerade, &desired.non_masquerade)),
    ];
    steps.retain(|step| !step.is_empty());
    if ranges.of_pods || steps.iter().any(Step::changes_decisions) {
        steps.push(Step::RaiseRevision);
    }
    let mut policy = removed(&actual.policy, &desired.policy);
    let in_passing = passing
        .entries
        .keys()
        .filter(|key| !actual.policy.contains_key(key));
    policy.extend(in_passing.filter(|key| !desired.policy.contains_key(key)));
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

/// How many policy entries the map holds at most on the way.
#[must_use]
pub fn most_policy_entries(actual: &Contents, desired: &Contents) -> usize {
    let passing = Passing::between(actual, desired);
    let keys: BTreeSet<&PolicyKey> = actual
        .policy
        .keys()
        .chain(desired.policy.keys())
        .chain(passing.entries.keys())
        .collect();
    keys.len()
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
            Self::WriteNonMasquerade(entries) => entries.len(),
            Self::WriteMasquerade(entries) => entries.len(),
            Self::DeleteMasquerade(keys) => keys.len(),
            Self::DeleteNonMasquerade(keys) => keys.len(),
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

    /// Whether a connection may be decided otherwise after the step. Services and the masquerade are not decided by
    /// policy: a live connection keeps its backend and its address.
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
            | Self::WriteNonMasquerade(_)
            | Self::WriteMasquerade(_)
            | Self::DeleteMasquerade(_)
            | Self::DeleteNonMasquerade(_)
            | Self::RaiseRevision
            | Self::DeletePolicy(_)
            | Self::DeletePorts(_)
            | Self::DeleteBackends(_)
            | Self::DeleteNumbers(_) => false,
        }
    }
}

/// Who has each address while pods change their policies.
fn passing_addresses(
    passing: &Passing,
    actual: &Contents,
    desired: &Contents,
) -> BTreeMap<Address, AddressValue> {
    let (before, after) = (Identities::new(actual), Identities::new(desired));
    let addresses: BTreeSet<&Address> = actual.addresses.keys().chain(desired.addresses.keys()).collect();
    let owned = addresses.into_iter().filter_map(|address| {
        let value = passing.address(
            (actual.addresses.get(address), before.of(*address)),
            (desired.addresses.get(address), after.of(*address)),
        )?;
        Some((*address, value))
    });
    owned.collect()
}

/// The pods that stay, under their names in passing and the policy that `choose` takes of the old and the new one.
fn passing_workloads(
    passing: &Passing,
    actual: &Contents,
    desired: &Contents,
    choose: impl Fn(&Workload, &Workload) -> Workload,
) -> BTreeMap<Address, Workload> {
    let staying = actual.workloads.iter().filter_map(|(address, old)| {
        let new = desired.workloads.get(address)?;
        Some((*address, passing.workload(&choose(old, new), old, new)))
    });
    staying.collect()
}

/// The same keys with the values that are desired.
fn with_desired<K: Copy + Ord, V: Copy>(keys: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let kept = desired.iter().filter(|(key, _)| keys.contains_key(key));
    kept.map(|(key, value)| (*key, *value)).collect()
}

/// CIDRs to write before pods change their policies, and after.
struct CidrChanges {
    early: Vec<(CidrKey, u32)>,
    late: Vec<(CidrKey, u32)>,
}

impl CidrChanges {
    /// Longer ones are written before and deleted after those around them, so that an address is never taken for one
    /// of a CIDR that it is in neither before nor after. A CIDR that no rule names any more stands for nobody.
    fn between(actual: &BTreeMap<CidrKey, u32>, desired: &BTreeMap<CidrKey, u32>) -> Self {
        let (late, mut early): (Vec<_>, Vec<_>) = changed(actual, desired)
            .into_iter()
            .partition(|(key, number)| *number == NOBODY && actual.contains_key(key));
        early.reverse();
        Self { early, late }
    }
}

/// Ranges to write before pods change their policies, and after.
struct RangeChanges {
    early: Vec<(CidrKey, u32)>,
    late: Vec<(CidrKey, u32)>,
    /// Whether some address may be a pod's, or no pod's, that was not before.
    of_pods: bool,
}

impl RangeChanges {
    fn between(actual: &BTreeMap<CidrKey, u32>, desired: &BTreeMap<CidrKey, u32>) -> Self {
        let of_pods = |ranges: &BTreeMap<CidrKey, u32>, key: &CidrKey| {
            ranges.get(key).is_some_and(|flags| flags & POD_RANGE != 0)
        };
        let keys = actual.keys().chain(desired.keys());
        let (late, mut early): (Vec<_>, Vec<_>) = changed(actual, desired)
            .into_iter()
            .partition(|(key, _)| of_pods(actual, key) && !of_pods(desired, key));
        // Longer ones first: an exception in a range is there before the range is.
        early.reverse();
        Self {
            early,
            late,
            of_pods: keys
                .into_iter()
                .any(|key| of_pods(actual, key) != of_pods(desired, key)),
        }
    }
}

fn changed<K: Copy + Ord, V: Copy + Eq>(actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Vec<(K, V)> {
    let changed = desired
        .iter()
        .filter(|(key, value)| actual.get(key) != Some(value));
    changed.map(|(key, value)| (*key, *value)).collect()
}

fn removed<K: Copy + Ord, V>(actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Vec<K> {
    actual
        .keys()
        .filter(|key| !desired.contains_key(key))
        .copied()
        .collect()
}
