//! Policy sets: their entries and numbers.
//!
//! A set that is in use changes under its number only where no packet can tell: by entries of peers that no address
//! has yet (written before the addresses), or that no address has any more (removed after them), and not by both
//! identities and CIDRs, which no address changes at once. Every other change makes a new set, whose entries are all
//! there before the first pod is given it. So at each moment a pod has one whole policy, the old one or the new one.
//!
//! A set that some pod leaves is entered by no other, and the one that stays the same for those who stay: while peers
//! change their names it must know them as before, and one that is entered as after
//! (see [`transition`](crate::transition)).

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::address::{Address, UNKNOWN_POD};
use weir_abi::policy::{ANY_PEER, CIDR_PEER, EGRESS, INGRESS, PolicyKey, PolicyValue, side};
use weir_abi::workload::workload_flags;
use weir_policy::resolved::{Entry, PolicySet, Resolved, Side};

use super::cidrs::Cidrs;
use super::port_tables::{Tables, pack};
use crate::contents::Contents;
use crate::trie::Identities;

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
    resolved
        .sets
        .iter()
        .map(|set| layout(set, rules, tables, cidrs))
        .collect()
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
    entries.extend(
        side.identities
            .iter()
            .map(|(identity, entry)| ((direction, *identity), value(entry))),
    );
    entries.extend(
        side.cidrs
            .iter()
            .map(|(index, entry)| ((direction, CIDR_PEER | cidrs.numbers[*index]), value(entry))),
    );
}

/// Chooses a number for each layout. `users` are the pods' addresses and the index of each one's layout; `desired` has
/// the addresses and CIDRs that will be.
pub(super) fn number(
    layouts: &[Layout],
    users: &BTreeMap<Address, Option<usize>>,
    desired: &Contents,
    actual: &Contents,
) -> Vec<SetNumber> {
    let existing = existing(actual);
    let peers = Peers::between(actual, desired);
    let moves = Moves::between(actual, users);
    let mut free = (1..).filter(|number| !existing.contains_key(number));
    let mut claimed = BTreeSet::new();
    let mut numbers = vec![None; layouts.len()];
    let exact: BTreeMap<&BTreeMap<Place, PolicyValue>, u32> = existing
        .iter()
        .map(|(number, entries)| (entries, *number))
        .collect();
    for ((index, layout), number) in layouts.iter().enumerate().zip(&mut numbers) {
        *number = exact
            .get(&layout.entries)
            .copied()
            .filter(|number| !(moves.some_leave(*number, index) && moves.some_enter(*number, index)))
            .filter(|number| claimed.insert(*number));
    }
    for ((index, layout), number) in layouts.iter().enumerate().zip(&mut numbers) {
        if number.is_none() {
            *number = existing
                .iter()
                .filter(|(number, _)| !claimed.contains(*number))
                .filter(|(number, _)| {
                    !moves.some_leave(**number, index) && !moves.some_enter(**number, index)
                })
                .find(|(_, entries)| is_unseen(entries, &layout.entries, &peers))
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
            (
                PolicyKey {
                    side: side(set.number, *direction),
                    peer: *peer,
                },
                *value,
            )
        })
    });
    keyed.collect()
}

fn existing(actual: &Contents) -> BTreeMap<u32, BTreeMap<Place, PolicyValue>> {
    let mut sets: BTreeMap<u32, BTreeMap<Place, PolicyValue>> = BTreeMap::new();
    for (key, value) in &actual.policy {
        sets.entry(key.side >> 1)
            .or_default()
            .insert((key.side & 1, key.peer), *value);
    }
    sets
}

/// Pods that stay, by the set that they have and by the layout that they will have.
struct Moves {
    had: BTreeMap<u32, BTreeSet<Address>>,
    will_have: BTreeMap<usize, BTreeSet<Address>>,
}

impl Moves {
    fn between(actual: &Contents, users: &BTreeMap<Address, Option<usize>>) -> Self {
        let mut moves = Self {
            had: BTreeMap::new(),
            will_have: BTreeMap::new(),
        };
        for (address, workload) in &actual.workloads {
            let Some(layout) = users.get(address) else {
                continue;
            };
            moves.had.entry(workload.policy_set).or_default().insert(*address);
            if let Some(layout) = layout {
                moves.will_have.entry(*layout).or_default().insert(*address);
            }
        }
        moves
    }

    /// If the layout gets the number.
    fn some_leave(&self, number: u32, layout: usize) -> bool {
        !is_subset(self.had.get(&number), self.will_have.get(&layout))
    }

    /// If the layout gets the number.
    fn some_enter(&self, number: u32, layout: usize) -> bool {
        !is_subset(self.will_have.get(&layout), self.had.get(&number))
    }
}

fn is_subset(one: Option<&BTreeSet<Address>>, other: Option<&BTreeSet<Address>>) -> bool {
    one.is_none_or(|one| other.map_or(one.is_empty(), |other| one.is_subset(other)))
}

/// Who can be met before and after.
struct Peers {
    before: BTreeSet<u32>,
    after: BTreeSet<u32>,
    /// Whether some address gets another identity.
    some_are_renamed: bool,
}

impl Peers {
    fn between(actual: &Contents, desired: &Contents) -> Self {
        Self {
            before: peers_in_use(actual),
            after: peers_in_use(desired),
            some_are_renamed: some_are_renamed(actual, desired),
        }
    }
}

fn some_are_renamed(actual: &Contents, desired: &Contents) -> bool {
    let (before, after) = (Identities::new(actual), Identities::new(desired));
    let mut addresses = actual.addresses.keys().chain(desired.addresses.keys());
    let mut workloads = actual
        .workloads
        .iter()
        .filter(|(address, _)| desired.addresses.contains_key(address));
    addresses.any(|address| before.of(*address) != after.of(*address))
        || workloads.any(|(address, workload)| workload.identity != after.of(*address))
}

/// Identities that some address has or may have, and CIDRs that are in the trie.
fn peers_in_use(contents: &Contents) -> BTreeSet<u32> {
    let identities = contents.addresses.values().map(|value| value.identity);
    let local = contents.workloads.values().map(|workload| workload.identity);
    identities
        .chain(local)
        .chain([UNKNOWN_POD])
        .chain(contents.cidrs.values().map(|number| CIDR_PEER | number))
        .collect()
}

/// Whether going from one content to the other is unseen by every packet, see the module.
fn is_unseen(from: &BTreeMap<Place, PolicyValue>, to: &BTreeMap<Place, PolicyValue>, peers: &Peers) -> bool {
    let written = to
        .iter()
        .filter(|(place, value)| from.get(place) != Some(value))
        .map(|(place, _)| place.1);
    let removed = from
        .keys()
        .filter(|place| !to.contains_key(place))
        .map(|place| place.1);
    let is_cidr = |peer: u32| peer & CIDR_PEER != 0;
    from.keys().any(|place| to.contains_key(place))
        && written
            .clone()
            .all(|peer| peer != ANY_PEER && !peers.before.contains(&peer))
        && removed
            .clone()
            .all(|peer| peer != ANY_PEER && !peers.after.contains(&peer))
        && !(peers.some_are_renamed && written.chain(removed).any(is_cidr))
}
