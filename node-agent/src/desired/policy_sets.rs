//! Policy sets: their entries and numbers.
//!
//! A set that is in use changes under its number only where no packet can tell: by entries of peers that no address
//! has yet (written before the addresses), or that no address has any more (removed after them). Every other change
//! makes a new set, whose entries are all there before the first pod is given it. So at each moment a pod has one
//! whole policy, the old one or the new one.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{ANY_PEER, CIDR_PEER, EGRESS, INGRESS, PolicyKey, PolicyValue, side};
use weir_abi::workload::workload_flags;
use weir_policy::resolved::{Entry, PolicySet, Resolved, Side};

use super::cidrs::Cidrs;
use super::port_tables::{Tables, pack};
use crate::contents::Contents;

/// Direction and peer.
type Place = (u32, u32);

/// The entries of a set that has no number yet.
pub(super) struct Layout {
    entries: BTreeMap<Place, PolicyValue>,
    cidr_flags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetNumber {
    pub(super) number: u32,
    /// Bits of [`workload_flags`]: which sides have entries of CIDRs.
    pub(super) cidr_flags: u32,
}

pub(super) fn lay_out(resolved: &Resolved, rules: &[u32], tables: &Tables, cidrs: &Cidrs) -> Vec<Layout> {
    resolved.sets.iter().map(|set| layout(set, rules, tables, cidrs)).collect()
}

fn layout(set: &PolicySet, rules: &[u32], tables: &Tables, cidrs: &Cidrs) -> Layout {
    let mut entries = BTreeMap::new();
    for (direction, side) in [(INGRESS, &set.ingress), (EGRESS, &set.egress)] {
        add_side(&mut entries, direction, side, cidrs, |entry| {
            let table = tables.get(entry.ports);
            PolicyValue {
                enforced: pack(&entry.decision.enforced, rules),
                dry_run: pack(&entry.decision.dry_run, rules),
                port_table: table.number,
                prefix_lens: table.prefix_lens,
            }
        });
    }
    let flag = |side: &Side, flag| if side.cidrs.is_empty() { 0 } else { flag };
    let cidr_flags =
        flag(&set.ingress, workload_flags::INGRESS_CIDRS) | flag(&set.egress, workload_flags::EGRESS_CIDRS);
    Layout { entries, cidr_flags }
}

fn add_side(
    entries: &mut BTreeMap<Place, PolicyValue>,
    direction: u32,
    side: &Side,
    cidrs: &Cidrs,
    value: impl Fn(&Entry) -> PolicyValue,
) {
    if let Some(entry) = &side.any {
        entries.insert((direction, ANY_PEER), value(entry));
    }
    entries.extend(side.identities.iter().map(|(identity, entry)| ((direction, *identity), value(entry))));
    entries.extend(
        side.cidrs.iter().map(|(index, entry)| ((direction, CIDR_PEER | cidrs.numbers[*index]), value(entry))),
    );
}

/// Chooses a number for each layout. `desired` has the addresses and CIDRs that will be.
pub(super) fn number(layouts: &[Layout], desired: &Contents, actual: &Contents) -> Vec<SetNumber> {
    let existing = existing(actual);
    let (before, after) = (peers_in_use(actual), peers_in_use(desired));
    let mut free = (1..).filter(|number| !existing.contains_key(number));
    let mut claimed = BTreeSet::new();
    let mut numbers = vec![None; layouts.len()];
    let exact: BTreeMap<&BTreeMap<Place, PolicyValue>, u32> =
        existing.iter().map(|(number, entries)| (entries, *number)).collect();
    for (layout, number) in layouts.iter().zip(&mut numbers) {
        *number = exact.get(&layout.entries).copied().filter(|number| claimed.insert(*number));
    }
    for (layout, number) in layouts.iter().zip(&mut numbers) {
        if number.is_none() {
            *number = existing
                .iter()
                .find(|(number, entries)| {
                    !claimed.contains(*number) && is_unseen(entries, &layout.entries, &before, &after)
                })
                .map(|(number, _)| *number);
            claimed.extend(*number);
        }
    }
    layouts
        .iter()
        .zip(numbers)
        .map(|(layout, number)| SetNumber {
            number: number.or_else(|| free.next()).unwrap_or_default(),
            cidr_flags: layout.cidr_flags,
        })
        .collect()
}

pub(super) fn entries(layouts: &[Layout], numbers: &[SetNumber]) -> BTreeMap<PolicyKey, PolicyValue> {
    let keyed = layouts.iter().zip(numbers).flat_map(|(layout, set)| {
        layout.entries.iter().map(|((direction, peer), value)| {
            (PolicyKey { side: side(set.number, *direction), peer: *peer }, *value)
        })
    });
    keyed.collect()
}

fn existing(actual: &Contents) -> BTreeMap<u32, BTreeMap<Place, PolicyValue>> {
    let mut sets: BTreeMap<u32, BTreeMap<Place, PolicyValue>> = BTreeMap::new();
    for (key, value) in &actual.policy {
        sets.entry(key.side >> 1).or_default().insert((key.side & 1, key.peer), *value);
    }
    sets
}

/// Identities that some address has, and CIDRs that are in the trie.
fn peers_in_use(contents: &Contents) -> BTreeSet<u32> {
    let identities = contents.addresses.values().map(|value| value.identity);
    let local = contents.workloads.values().map(|workload| workload.identity);
    identities.chain(local).chain(contents.cidrs.values().map(|number| CIDR_PEER | number)).collect()
}

/// Whether going from one content to the other is unseen by every packet, see the module.
fn is_unseen(
    from: &BTreeMap<Place, PolicyValue>,
    to: &BTreeMap<Place, PolicyValue>,
    before: &BTreeSet<u32>,
    after: &BTreeSet<u32>,
) -> bool {
    let shared = |(_, peer): &Place| *peer == ANY_PEER;
    let written = to.iter().filter(|(place, value)| from.get(place) != Some(value));
    let removed = from.keys().filter(|place| !to.contains_key(place));
    let mut some_stay = from.keys().filter(|place| to.contains_key(place)).peekable();
    some_stay.peek().is_some()
        && written.clone().all(|(place, _)| !shared(place) && !before.contains(&place.1))
        && removed.clone().all(|place| !shared(place) && !after.contains(&place.1))
}
