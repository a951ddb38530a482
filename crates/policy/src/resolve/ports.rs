//! From what rules claim of ports to one decision for each port.

use std::collections::BTreeMap;

use crate::model::{Protocol, Tier};
use crate::order::better;
use crate::resolved::{Decision, Entry, PortPrefix, PortTable, Slot, Slots};

/// What one rule says, of all traffic with a peer or of some ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) tier: Tier,
    pub(super) slot: Slot,
    /// Counts in what is enforced.
    pub(super) enforced: bool,
    /// Counts in what would hold with the dry-run policies.
    pub(super) dry_run: bool,
    /// `None`: every protocol and port.
    pub(super) ports: Option<PortRange>,
}

/// Ports of one protocol, `first` and `last` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortRange {
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// The distinct port tables.
#[derive(Default)]
pub(super) struct Tables {
    indices: BTreeMap<PortTable, usize>,
}

impl Tables {
    /// The entry in which all these claims are settled.
    pub(super) fn entry(&mut self, claims: &[Claim]) -> Entry {
        let (decision, table) = settle(claims);
        Entry {
            decision,
            ports: (!table.prefixes.is_empty()).then(|| self.index(table)),
        }
    }

    fn index(&mut self, table: PortTable) -> usize {
        let next = self.indices.len();
        *self.indices.entry(table).or_insert(next)
    }

    pub(super) fn into_tables(self) -> Vec<PortTable> {
        let mut tables: Vec<_> = self.indices.into_iter().collect();
        tables.sort_unstable_by_key(|(_, index)| *index);
        tables.into_iter().map(|(table, _)| table).collect()
    }
}

/// The decision that holds for all ports, and the table of those where another holds.
fn settle(claims: &[Claim]) -> (Decision, PortTable) {
    let mut decision = Decision::default();
    for claim in claims.iter().filter(|claim| claim.ports.is_none()) {
        claim.improve(&mut decision);
    }
    let mut bounds = BTreeMap::<Protocol, Vec<Bound>>::new();
    for claim in claims {
        if let Some(ports) = claim.ports.filter(|_| claim.improves(&decision)) {
            let bounds = bounds.entry(ports.protocol).or_default();
            bounds.push(Bound {
                at: u32::from(ports.first),
                begins: true,
                claim,
            });
            bounds.push(Bound {
                at: u32::from(ports.last) + 1,
                begins: false,
                claim,
            });
        }
    }
    let mut table = PortTable::default();
    for (protocol, bounds) in bounds {
        add_prefixes(&mut table, protocol, &segments(bounds, &decision), &decision);
    }
    (decision, table)
}

impl Claim {
    fn improve(&self, decision: &mut Decision) {
        for slots in self.planes(decision) {
            let slot = slots.tier_mut(self.tier);
            *slot = better(*slot, Some(self.slot));
        }
    }

    fn improves(&self, decision: &Decision) -> bool {
        let mut improved = *decision;
        self.improve(&mut improved);
        improved != *decision
    }

    fn planes<'a>(&self, decision: &'a mut Decision) -> impl Iterator<Item = &'a mut Slots> + use<'a> {
        let enforced = self.enforced.then_some(&mut decision.enforced);
        let dry_run = self.dry_run.then_some(&mut decision.dry_run);
        enforced.into_iter().chain(dry_run)
    }
}

/// Where a claim begins to hold, or the port after its last.
struct Bound<'a> {
    at: u32,
    begins: bool,
    claim: &'a Claim,
}

/// Ports `first` to `last` for which the same holds.
struct Segment {
    first: u16,
    last: u16,
    decision: Decision,
}

/// Cuts all ports of a protocol into segments. Neighbours differ.
fn segments(mut bounds: Vec<Bound<'_>>, general: &Decision) -> Vec<Segment> {
    bounds.sort_by_key(|bound| bound.at);
    let mut segments = Vec::<Segment>::new();
    let mut holding = Holding::default();
    let mut from = 0;
    let mut bounds = bounds.into_iter().peekable();
    while from <= u32::from(u16::MAX) {
        while let Some(bound) = bounds.next_if(|bound| bound.at <= from) {
            holding.change(bound.claim, bound.begins);
        }
        let until = bounds.peek().map_or(u32::from(u16::MAX) + 1, |bound| bound.at);
        push(&mut segments, from, until - 1, holding.decision(general));
        from = until;
    }
    segments
}

/// Appends a segment, or makes the last one longer.
fn push(segments: &mut Vec<Segment>, first: u32, last: u32, decision: Decision) {
    let port = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
    match segments.last_mut() {
        Some(before) if before.decision == decision => before.last = port(last),
        Some(_) | None => segments.push(Segment {
            first: port(first),
            last: port(last),
            decision,
        }),
    }
}

/// The claims that hold at a port: how often each slot is claimed, by tier and by whether it is enforced.
#[derive(Default)]
struct Holding {
    enforced: BTreeMap<Tier, BTreeMap<Slot, usize>>,
    dry_run: BTreeMap<Tier, BTreeMap<Slot, usize>>,
}

impl Holding {
    fn change(&mut self, claim: &Claim, begins: bool) {
        let enforced = claim.enforced.then_some(&mut self.enforced);
        let dry_run = claim.dry_run.then_some(&mut self.dry_run);
        for plane in enforced.into_iter().chain(dry_run) {
            let slots = plane.entry(claim.tier).or_default();
            let count = slots.entry(claim.slot).or_default();
            if begins {
                *count += 1;
            } else {
                *count -= 1;
            }
            if *count == 0 {
                slots.remove(&claim.slot);
            }
        }
    }

    fn decision(&self, general: &Decision) -> Decision {
        let mut decision = *general;
        for (plane, slots) in [
            (&self.enforced, &mut decision.enforced),
            (&self.dry_run, &mut decision.dry_run),
        ] {
            for (&tier, claimed) in plane {
                let slot = slots.tier_mut(tier);
                *slot = better(*slot, claimed.keys().next().copied());
            }
        }
        decision
    }
}

/// Writes segments down as prefixes: one for the whole protocol where that saves some, and the rest on top of it.
fn add_prefixes(table: &mut PortTable, protocol: Protocol, segments: &[Segment], general: &Decision) {
    let covering = covering(segments, general);
    let protocol = protocol.number();
    if covering != *general {
        table.prefixes.insert(
            PortPrefix {
                protocol,
                len: 0,
                port: 0,
            },
            covering,
        );
    }
    for segment in segments.iter().filter(|segment| segment.decision != covering) {
        for (port, len) in prefixes(segment.first, segment.last) {
            table
                .prefixes
                .insert(PortPrefix { protocol, len, port }, segment.decision);
        }
    }
}

/// The decision that would take the most prefixes if it had to be written down.
fn covering(segments: &[Segment], general: &Decision) -> Decision {
    // The general decision needs no prefix at all, so it wins a tie against one that needs a single one.
    let mut costs = BTreeMap::from([(*general, 1)]);
    for segment in segments {
        *costs.entry(segment.decision).or_insert(0) += prefixes(segment.first, segment.last).count();
    }
    let costliest = costs
        .iter()
        .max_by_key(|&(decision, cost)| (*cost, decision == general));
    costliest.map_or(*general, |(decision, _)| *decision)
}

/// The fewest aligned blocks that make up the range: first port and number of fixed bits of each.
fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u8)> {
    let last = u32::from(last);
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        let aligned = next.trailing_zeros().min(16);
        let fitting = (last - next + 1).ilog2();
        let free = aligned.min(fitting);
        let block = (u16::try_from(next).ok()?, u8::try_from(16 - free).ok()?);
        next += 1 << free;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_becomes_the_fewest_aligned_blocks() {
        let blocks = |first, last| prefixes(first, last).collect::<Vec<_>>();
        assert_eq!(blocks(0, 65535), [(0, 0)]);
        assert_eq!(blocks(80, 80), [(80, 16)]);
        assert_eq!(blocks(65535, 65535), [(65535, 16)]);
        assert_eq!(blocks(8000, 8009), [(8000, 13), (8008, 15)]);
        assert_eq!(blocks(1, 65534).len(), 30);
    }
}
