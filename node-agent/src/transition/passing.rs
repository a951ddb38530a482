//! What is in the maps only while the old policies make way for the new ones: names that peers have in between, and
//! entries by which both the old policies and the new ones know every peer.
//!
//! The peers get new names all at once and the pods get new policies one by one, so a policy that a pod is about to
//! leave must say of a new name what it said of the old one. Where it cannot, because the name is in use already or
//! because peers of which it says different things get the same name, the peer has a name of its own in between: the
//! old policies say of it what they said of its old name, the new ones what they say of its new one.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::address::{Address, AddressValue, CidrKey, UNKNOWN_IDENTITY, UNKNOWN_POD, address_flags};
use weir_abi::policy::{ANY_PEER, CIDR_PEER, EGRESS, INGRESS, PolicyKey, PolicyValue, side};
use weir_abi::workload::{NO_POLICY_SET, Workload};

use crate::contents::Contents;
use crate::desired::NOBODY;
use crate::numbers::FIRST_PASSING_IDENTITY;
use crate::trie::{Identities, Trie};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Passing {
    /// Identities in between, by the old and the new one; the new one where there is none.
    names: BTreeMap<(u32, u32), u32>,
    /// Entries that are wanted in passing.
    pub(super) entries: BTreeMap<PolicyKey, PolicyValue>,
}

/// Policy sets as the pods that stay see them.
struct Sets {
    /// Sides that some pod leaves. No pod comes to them: `desired` chose the numbers so.
    left: BTreeSet<u32>,
    /// Sides that some pod comes to.
    entered: BTreeSet<u32>,
    /// All others that there will be.
    others: BTreeSet<u32>,
}

impl Passing {
    pub(super) fn between(actual: &Contents, desired: &Contents) -> Self {
        let sets = Sets::of(actual, desired);
        let mut passing = Self::default();
        passing.add_cidrs(&sets, actual, desired);
        passing.add_identities(&sets, actual, desired);
        passing
    }

    /// What an address has for an owner while pods change their policies, given the entry and the identity that it has
    /// and will have. The node's own are exempt from policy, and
    /// those that were or will be are so in between.
    pub(super) fn address(
        &self,
        (actual, old): (Option<&AddressValue>, u32),
        (desired, new): (Option<&AddressValue>, u32),
    ) -> Option<AddressValue> {
        let flags = |value: Option<&AddressValue>| value.map_or(0, |value| value.flags);
        let between = AddressValue {
            identity: self.identity(old, new),
            flags: flags(desired) | flags(actual) & address_flags::LOCAL_NODE,
        };
        let is_so_without = between.identity == new && between.flags == 0;
        (desired.is_some() || !is_so_without).then_some(between)
    }

    /// A pod under its old policy or its new one, and the name that it has in between.
    pub(super) fn workload(&self, policy: &Workload, actual: &Workload, desired: &Workload) -> Workload {
        Workload {
            identity: self.identity(actual.identity, desired.identity),
            ..*policy
        }
    }

    fn identity(&self, old: u32, new: u32) -> u32 {
        self.names.get(&(old, new)).copied().unwrap_or(new)
    }

    /// An address moves from one CIDR to another when one comes or goes between the two.
    fn add_cidrs(&mut self, sets: &Sets, actual: &Contents, desired: &Contents) {
        let (before, after) = (Trie::new(&actual.cidrs), Trie::new(&desired.cidrs));
        for (key, number) in difference(&actual.cidrs, &desired.cidrs) {
            let old = before.around(key).copied();
            self.repeat(&actual.policy, &sets.left, old, number);
        }
        for (key, number) in difference(&desired.cidrs, &actual.cidrs) {
            let new = after.around(key).copied();
            self.repeat(&desired.policy, &sets.entered, new, number);
        }
    }

    /// What the sides say of one CIDR, they say of the other.
    fn repeat(
        &mut self,
        policy: &BTreeMap<PolicyKey, PolicyValue>,
        sides: &BTreeSet<u32>,
        said: Option<u32>,
        of: u32,
    ) {
        let Some(said) = said else { return };
        for side in sides {
            if let Some(value) = policy.get(&PolicyKey {
                side: *side,
                peer: CIDR_PEER | said,
            }) {
                self.entries.insert(
                    PolicyKey {
                        side: *side,
                        peer: CIDR_PEER | of,
                    },
                    *value,
                );
            }
        }
    }

    fn add_identities(&mut self, sets: &Sets, actual: &Contents, desired: &Contents) {
        if sets.left.is_empty() {
            return;
        }
        let mut in_use = identities(actual);
        in_use.insert(UNKNOWN_POD);
        let mut free = free_names(&in_use, actual);
        // What the old policies will say of each new name.
        let mut promised: BTreeMap<u32, Vec<Option<PolicyValue>>> = BTreeMap::new();
        for (old, new) in renames(actual, desired) {
            let said = |identity| said(&actual.policy, &sets.left, identity);
            let (wanted, is) = (said(old), said(new));
            let promise = promised.get(&new).unwrap_or(&is);
            if *promise == wanted {
                promised.insert(new, wanted);
            } else if !promised.contains_key(&new)
                && !in_use.contains(&new)
                && can_be_taught(new, &sets.left, &actual.policy)
            {
                self.teach(&actual.policy, sets.left.iter(), old, new);
                promised.insert(new, wanted);
            } else if let Some(name) = free.next() {
                self.names.insert((old, new), name);
                self.teach(&actual.policy, sets.left.iter(), old, name);
                self.teach(&desired.policy, sets.entered.union(&sets.others), new, name);
            }
        }
    }

    /// Entries by which the sides say of `name` what they say of `identity`.
    fn teach<'a>(
        &mut self,
        policy: &BTreeMap<PolicyKey, PolicyValue>,
        sides: impl Iterator<Item = &'a u32>,
        identity: u32,
        name: u32,
    ) {
        for side in sides {
            let value = policy.get(&PolicyKey {
                side: *side,
                peer: identity,
            });
            if let Some(value) = value.filter(|_| identity != UNKNOWN_IDENTITY) {
                self.entries.insert(
                    PolicyKey {
                        side: *side,
                        peer: name,
                    },
                    *value,
                );
            }
        }
    }
}

impl Sets {
    fn of(actual: &Contents, desired: &Contents) -> Self {
        let (mut left, mut entered) = (BTreeSet::new(), BTreeSet::new());
        for (address, old) in &actual.workloads {
            let Some(new) = desired.workloads.get(address) else {
                continue;
            };
            if old.policy_set != new.policy_set {
                left.extend(sides(old.policy_set));
                entered.extend(sides(new.policy_set));
            }
        }
        let others = desired.policy.keys().map(|key| key.side);
        let others = others
            .filter(|side| !left.contains(side) && !entered.contains(side))
            .collect();
        Self {
            left,
            entered,
            others,
        }
    }
}

fn sides(set: u32) -> impl Iterator<Item = u32> {
    [INGRESS, EGRESS]
        .into_iter()
        .filter(move |_| set != NO_POLICY_SET)
        .map(move |direction| side(set, direction))
}

/// What each side says of an identity.
fn said(
    policy: &BTreeMap<PolicyKey, PolicyValue>,
    sides: &BTreeSet<u32>,
    identity: u32,
) -> Vec<Option<PolicyValue>> {
    let entry = |side: &u32, peer| policy.get(&PolicyKey { side: *side, peer }).copied();
    let said = |side| entry(side, identity).or_else(|| entry(side, ANY_PEER));
    sides.iter().map(said).collect()
}

/// Whether the name has no entries yet, so that those of another one can be its own.
fn can_be_taught(name: u32, sides: &BTreeSet<u32>, policy: &BTreeMap<PolicyKey, PolicyValue>) -> bool {
    let has_entry = |side: &u32| {
        policy.contains_key(&PolicyKey {
            side: *side,
            peer: name,
        })
    };
    name != UNKNOWN_IDENTITY && !sides.iter().any(has_entry)
}

fn identities(contents: &Contents) -> BTreeSet<u32> {
    let addresses = contents.addresses.values().map(|value| value.identity);
    addresses
        .chain(contents.workloads.values().map(|workload| workload.identity))
        .collect()
}

/// Numbers that no identity is given, and that an agent which died in between has not left anywhere.
fn free_names<'a>(in_use: &'a BTreeSet<u32>, actual: &Contents) -> impl Iterator<Item = u32> + use<'a> {
    let mut taken: BTreeSet<u32> = actual.policy.keys().map(|key| key.peer).collect();
    taken.extend(in_use);
    (FIRST_PASSING_IDENTITY..UNKNOWN_POD).filter(move |name| !taken.contains(name))
}

/// Old and new identities of all peers that change theirs.
fn renames(actual: &Contents, desired: &Contents) -> BTreeSet<(u32, u32)> {
    let (before, after) = (Identities::new(actual), Identities::new(desired));
    let addresses: BTreeSet<&Address> = actual.addresses.keys().chain(desired.addresses.keys()).collect();
    let addresses = addresses
        .into_iter()
        .map(|address| (before.of(*address), after.of(*address)));
    let workloads = actual
        .workloads
        .iter()
        .filter_map(|(address, value)| Some((value.identity, desired.workloads.get(address)?.identity)));
    addresses
        .chain(workloads)
        .filter(|(old, new)| old != new)
        .collect()
}

/// CIDRs of `to` that `from` does not have, or under another number.
fn difference(
    from: &BTreeMap<CidrKey, u32>,
    to: &BTreeMap<CidrKey, u32>,
) -> impl Iterator<Item = (CidrKey, u32)> {
    let new = to
        .iter()
        .filter(|(key, number)| from.get(key) != Some(number) && **number != NOBODY);
    new.map(|(key, number)| (*key, *number))
}
