//! Resolved policy keeps the promises of its types, whatever it was made from.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use weir_policy::arbitrary;
use weir_policy::cluster::Cluster;
use weir_policy::resolved::{
    Action, Cause, Decision, Direction, Entry, PolicySet, PortPrefix, Resolved, Side, Slot, UNKNOWN_POD,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/shape.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn resolved_policy_is_in_shape(snapshot in arbitrary::snapshot()) {
        let cluster = Cluster::new(snapshot);
        for resolved in cluster.resolved.values() {
            is_distinct_and_in_use(resolved);
            for set in &resolved.sets {
                is_side_in_shape(resolved, &set.ingress, Direction::Ingress);
                is_side_in_shape(resolved, &set.egress, Direction::Egress);
            }
        }
    }
}

fn is_distinct_and_in_use(resolved: &Resolved) {
    assert!(
        resolved.cidrs.is_sorted_by(|one, other| one < other),
        "{:?}",
        resolved.cidrs
    );
    assert!(
        resolved.cidrs.iter().all(|cidr| *cidr == cidr.trunc()),
        "{:?}",
        resolved.cidrs
    );
    assert!(
        resolved.causes.is_sorted_by(|one, other| one < other),
        "{:?}",
        resolved.causes
    );
    let tables: BTreeSet<_> = resolved.port_tables.iter().collect();
    assert_eq!(tables.len(), resolved.port_tables.len(), "distinct port tables");
    let sets: BTreeSet<_> = resolved.sets.iter().collect();
    assert_eq!(sets.len(), resolved.sets.len(), "distinct policy sets");
    assert!(
        !resolved.sets.contains(&PolicySet::default()),
        "a set that restricts nothing"
    );
    let sets_in_use: BTreeSet<usize> = resolved.pods.values().copied().collect();
    assert_eq!(sets_in_use, (0..resolved.sets.len()).collect(), "sets in use");
    let entries = resolved
        .sets
        .iter()
        .flat_map(|set| entries(&set.ingress).chain(entries(&set.egress)));
    let tables_in_use: BTreeSet<usize> = entries.filter_map(|entry| entry.ports).collect();
    assert_eq!(
        tables_in_use,
        (0..resolved.port_tables.len()).collect(),
        "port tables in use"
    );
}

fn entries(side: &Side) -> impl Iterator<Item = &Entry> {
    side.any
        .iter()
        .chain(side.identities.values())
        .chain(side.cidrs.values())
}

fn is_side_in_shape(resolved: &Resolved, side: &Side, direction: Direction) {
    let Some(any) = &side.any else {
        assert_eq!(*side, Side::default(), "a side without policy has no entries");
        return;
    };
    assert!(!side.identities.contains_key(&0), "no identity is 0");
    let known = || {
        side.identities
            .iter()
            .filter(|(number, _)| **number != UNKNOWN_POD)
    };
    assert!(
        known().all(|(_, entry)| entry != any),
        "an identity's entry differs from any"
    );
    for entry in entries(side) {
        // Who may be passed on and denied is denied.
        let passes = |action| match side.identities.get(&UNKNOWN_POD) {
            Some(unknown) if unknown == entry && action == Action::Pass => [Action::Pass, Action::Deny],
            _ => [action; 2],
        };
        are_slots_in_shape(resolved, &entry.decision, direction, passes);
        for (prefix, decision) in entry
            .ports
            .iter()
            .flat_map(|&table| &resolved.port_tables[table].prefixes)
        {
            are_slots_in_shape(resolved, decision, direction, passes);
            assert!(
                matches!(prefix.protocol, 6 | 17 | 132) && prefix.len <= 16,
                "{prefix:?}"
            );
            assert_eq!(
                *prefix,
                shortened(*prefix, prefix.len),
                "bits past the length are zero"
            );
            assert_ne!(
                *decision,
                without(resolved, entry, *prefix),
                "{prefix:?} says what holds without it"
            );
        }
    }
    for index in 0..resolved.cidrs.len() {
        let differs = |index: usize| side.cidrs.get(&index).is_some_and(|entry| entry != any);
        let around = |outer: &usize| resolved.cidrs[*outer].contains(&resolved.cidrs[index]);
        let wanted = (0..=index).filter(around).any(differs);
        assert_eq!(
            side.cidrs.contains_key(&index),
            wanted,
            "entry of {}",
            resolved.cidrs[index]
        );
    }
}

/// What would hold for the ports of a prefix if it were not there.
fn without(resolved: &Resolved, entry: &Entry, prefix: PortPrefix) -> Decision {
    let shorter = (0..prefix.len).rev().map(|len| shortened(prefix, len));
    let table = entry.ports.map(|table| &resolved.port_tables[table].prefixes);
    let around = shorter.filter_map(|shorter| table?.get(&shorter)).next();
    around.copied().unwrap_or(entry.decision)
}

fn shortened(prefix: PortPrefix, len: u8) -> PortPrefix {
    let mask = u16::MAX.checked_shl(u32::from(16 - len)).unwrap_or(0);
    PortPrefix {
        len,
        port: prefix.port & mask,
        ..prefix
    }
}

/// `possible` are the actions that a slot may have whose rule has this one.
fn are_slots_in_shape(
    resolved: &Resolved,
    decision: &Decision,
    direction: Direction,
    possible: impl Fn(Action) -> [Action; 2],
) {
    for slots in [&decision.enforced, &decision.dry_run] {
        for slot in [slots.admin, slots.network_policy, slots.baseline]
            .into_iter()
            .flatten()
        {
            assert!(slot.rank < 1 << 30, "{slot:?}");
            is_cause_of(&resolved.causes[slot.cause as usize], &slot, direction, &possible);
        }
        let network_policy = slots
            .network_policy
            .map(|slot| (slot.action, slot.rank == Slot::IMPLICIT_DENY_RANK));
        assert!(matches!(
            network_policy,
            None | Some((Action::Accept, false) | (Action::Deny, true))
        ));
    }
}

fn is_cause_of(cause: &Cause, slot: &Slot, of: Direction, possible: impl Fn(Action) -> [Action; 2]) {
    match cause {
        Cause::Rule {
            action, direction, ..
        } => assert!(
            possible(*action).contains(&slot.action) && *direction == of,
            "{cause:?}"
        ),
        Cause::Isolated { policies, direction } => {
            assert_eq!((Action::Deny, *direction), (slot.action, of), "{cause:?}");
            assert!(!policies.is_empty() && policies.is_sorted(), "{cause:?}");
        }
    }
}
