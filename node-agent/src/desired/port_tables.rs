//! Port tables: prefixes of the lengths that the programs look for, and numbers.
//!
//! A table never changes under its number: another content is another table, and entries that used the old one are
//! written anew.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{NO_PORTS, PortKey, PortValue};
use weir_abi::slots::{self, Slots};
use weir_policy::resolved::{self, Action, Decision, PortTable};

/// Protocol, prefix length, port.
type Prefix = (u8, u8, u16);
type Table = BTreeMap<Prefix, PortValue>;

pub(super) struct Tables {
    /// By index into the resolved tables.
    numbers: Vec<TableNumber>,
    pub(super) entries: BTreeMap<PortKey, PortValue>,
}

#[derive(Clone, Copy)]
pub(super) struct TableNumber {
    pub(super) number: u32,
    pub(super) prefix_lens: u32,
}

impl Tables {
    pub(super) fn get(&self, index: Option<usize>) -> TableNumber {
        index.map_or(
            TableNumber {
                number: NO_PORTS,
                prefix_lens: 0,
            },
            |index| self.numbers[index],
        )
    }
}

pub(super) fn number(tables: &[PortTable], rules: &[u32], actual: &BTreeMap<PortKey, PortValue>) -> Tables {
    let mut existing: BTreeMap<u32, Table> = BTreeMap::new();
    for (key, value) in actual {
        existing
            .entry(key.table)
            .or_default()
            .insert((key.protocol, key.prefix_len, key.port), *value);
    }
    let taken: BTreeSet<u32> = existing.keys().copied().collect();
    let mut known: BTreeMap<Table, u32> = existing
        .into_iter()
        .map(|(number, table)| (table, number))
        .collect();
    let mut free = (1..).filter(|number| !taken.contains(number));
    let mut result = Tables {
        numbers: Vec::new(),
        entries: BTreeMap::new(),
    };
    for table in tables {
        let table = expand(table, rules);
        let prefix_lens = table.keys().fold(0, |lens, (_, len, _)| lens | 1 << len);
        let number = *known
            .entry(table.clone())
            .or_insert_with(|| free.next().unwrap_or(u32::MAX));
        result
            .entries
            .extend(table.into_iter().map(|((protocol, prefix_len, port), value)| {
                (
                    PortKey {
                        table: number,
                        port,
                        protocol,
                        prefix_len,
                    },
                    value,
                )
            }));
        result.numbers.push(TableNumber { number, prefix_lens });
    }
    result
}

/// Prefixes of any length as prefixes whose length is a multiple of four. The longest are taken first, and keep
/// their ports.
fn expand(table: &PortTable, rules: &[u32]) -> Table {
    let mut prefixes: Vec<_> = table.prefixes.iter().collect();
    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len));
    let mut expanded = Table::new();
    for (prefix, decision) in prefixes {
        let len = prefix.len.next_multiple_of(4);
        let step = 1_u32 << (16 - len);
        for i in 0..1_u32 << (len - prefix.len) {
            // Within the prefix, so within 16 bits.
            let port = (u32::from(prefix.port) + i * step) as u16;
            expanded
                .entry((prefix.protocol, len, port))
                .or_insert_with(|| value(decision, rules));
        }
    }
    expanded
}

fn value(decision: &Decision, rules: &[u32]) -> PortValue {
    PortValue {
        enforced: pack(&decision.enforced, rules),
        dry_run: pack(&decision.dry_run, rules),
    }
}

/// Slots as the programs read them. `rules` are the numbers of the causes.
pub(super) fn pack(slots: &resolved::Slots, rules: &[u32]) -> Slots {
    let one = |slot: &Option<resolved::Slot>| {
        slot.map_or(slots::EMPTY, |slot| {
            let action = match slot.action {
                Action::Accept => slots::ACCEPT,
                Action::Deny => slots::DENY,
                Action::Pass => slots::PASS,
            };
            slots::slot(slot.rank, action, rules[slot.cause as usize])
        })
    };
    Slots {
        admin: one(&slots.admin),
        network_policy: one(&slots.network_policy),
        baseline: one(&slots.baseline),
    }
}

#[cfg(test)]
mod tests {
    use weir_policy::resolved::{PortPrefix, Slot};

    use super::*;

    fn decision(cause: u32) -> Decision {
        let slot = Slot {
            rank: 1,
            action: Action::Accept,
            cause,
        };
        let slots = resolved::Slots {
            network_policy: Some(slot),
            ..resolved::Slots::default()
        };
        Decision {
            enforced: slots,
            dry_run: slots,
        }
    }

    /// For every port: the longest prefix of the table says the same before and after.
    #[test]
    fn expanding_keeps_the_longest_match() {
        let prefix = |len, port| PortPrefix {
            protocol: 6,
            len,
            port,
        };
        let prefixes = BTreeMap::from([
            (prefix(0, 0), decision(0)),
            (prefix(1, 0x8000), decision(1)),
            (prefix(3, 0xa000), decision(2)),
            (prefix(13, 0xa010), decision(3)),
            (prefix(14, 0xa014), decision(4)),
            (prefix(16, 0xa015), decision(5)),
        ]);
        let rules = [10, 11, 12, 13, 14, 15];
        let expanded = expand(
            &PortTable {
                prefixes: prefixes.clone(),
            },
            &rules,
        );
        assert!(expanded.keys().all(|(_, len, _)| len % 4 == 0));
        for port in 0..=u16::MAX {
            let mask = |len: u8| (u32::from(port) >> (16 - len) << (16 - len)) as u16;
            let before = (0..=16)
                .rev()
                .find_map(|len| prefixes.get(&prefix(len, mask(len))));
            let after = (0..=16).rev().find_map(|len| expanded.get(&(6, len, mask(len))));
            assert_eq!(
                after.copied(),
                before.map(|decision| value(decision, &rules)),
                "port {port}"
            );
        }
    }

    #[test]
    fn an_equal_table_keeps_its_number() {
        let table = |cause| PortTable {
            prefixes: BTreeMap::from([(
                PortPrefix {
                    protocol: 17,
                    len: 16,
                    port: 53,
                },
                decision(cause),
            )]),
        };
        let rules = [7, 8];
        let first = number(&[table(0), table(1)], &rules, &BTreeMap::new());
        let second = number(&[table(1)], &rules, &first.entries);
        assert_eq!(second.get(Some(0)).number, first.get(Some(1)).number);
        let third = number(&[table(0), table(1)], &rules, &second.entries);
        assert_eq!(third.get(Some(1)).number, first.get(Some(1)).number);
        assert_ne!(third.get(Some(0)).number, third.get(Some(1)).number);
    }
}
