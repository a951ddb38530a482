//! The maps hold what is written to them, whatever the kind of map.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kernel_bed;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;

use kernel_bed::flows::{TCP, UDP, flow, key4};
use kernel_bed::{CAPACITIES, in_bed, open};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::Control;
use weir_abi::flow::{FlowKey4, flow_flags};
use weir_abi::policy::{NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue, RuleCount};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::slots::Slots;
use weir_abi::workload::Workload;
use weir_agent::kernel::{Capacities, FlowTable, FlowTables, Kernel, LogCount};
use weir_agent::table::{
    Addresses, Backends, Cidrs, Maps as _, Numbers, Policy, Ports, Services, Table, Workloads,
};

#[derive(Debug, Clone)]
enum Op {
    Write(Vec<(u8, u8)>),
    Delete(Vec<u8>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few keys, so that most operations meet an entry.
    let key = 0u8..48;
    let op = prop_oneof![
        vec((key.clone(), 1u8..), 0..24).prop_map(Op::Write),
        vec(key, 0..24).prop_map(Op::Delete),
    ];
    vec(op, 0..12)
}

/// The table does what a `BTreeMap` does.
fn behaves<T: Table>(kernel: &mut Kernel, key: impl Fn(u8) -> T::Key, value: impl Fn(u8) -> T::Value) {
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    };
    let kernel = RefCell::new(kernel);
    TestRunner::new(config)
        .run(&ops(), |ops| {
            let kernel = &mut *kernel.borrow_mut();
            let mut model: BTreeMap<T::Key, T::Value> = BTreeMap::new();
            let rest: Vec<T::Key> = kernel.read::<T>().unwrap().into_keys().collect();
            kernel.delete::<T>(&rest).unwrap();
            for op in ops {
                match op {
                    Op::Write(entries) => {
                        let entries: Vec<_> = entries.iter().map(|(k, v)| (key(*k), value(*v))).collect();
                        kernel.write::<T>(&entries).unwrap();
                        model.extend(entries);
                    }
                    Op::Delete(keys) => {
                        let keys: Vec<_> = keys.iter().map(|k| key(*k)).collect();
                        kernel.delete::<T>(&keys).unwrap();
                        for key in keys {
                            model.remove(&key);
                        }
                    }
                }
                prop_assert_eq!(&kernel.read::<T>().unwrap(), &model);
                prop_assert_eq!(kernel.occupancy::<T>().unwrap() as usize, model.len());
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{}: {error}", T::NAME));
}

#[test]
fn every_table_does_what_a_btreemap_does() {
    in_bed(|bed| {
        let kernel = &mut bed.kernel();
        behaves::<Workloads>(kernel, address, |n| Workload {
            ifindex: n.into(),
            ..Workload::default()
        });
        behaves::<Addresses>(kernel, address, |n| AddressValue {
            identity: n.into(),
            flags: 2,
        });
        behaves::<Cidrs>(kernel, cidr, u32::from);
        behaves::<Policy>(
            kernel,
            |n| PolicyKey {
                side: 3,
                peer: n.into(),
            },
            policy_value,
        );
        behaves::<Ports>(
            kernel,
            |n| PortKey {
                table: 9,
                port: u16::from(n) << 8,
                protocol: 6,
                prefix_len: 8,
            },
            |n| PortValue {
                enforced: slots(n),
                dry_run: slots(0),
            },
        );
        behaves::<Services>(
            kernel,
            |n| ServiceKey {
                address: address(n),
                port: 80,
                protocol: 6,
                padding: [0; 5],
            },
            |n| ServiceValue {
                first: n.into(),
                count: 2,
            },
        );
        behaves::<Backends>(kernel, u32::from, |n| Backend {
            port: n.into(),
            ..Backend::default()
        });
        behaves::<Numbers>(
            kernel,
            |n| NumberKey {
                space: 1,
                number: n.into(),
            },
            |n| NumberValue {
                digest: [n.into(), 7],
            },
        );
    });
}

#[test]
fn tables_larger_than_a_batch_are_read_and_deleted_whole() {
    in_bed(|bed| {
        let mut config = bed.config();
        config.capacities = Capacities {
            policy: 20_000,
            cidrs: 20_000,
            backends: 20_000,
            ..CAPACITIES
        };
        let kernel = &mut open(config);
        let policy: Vec<_> = (0..20_000)
            .map(|n| (PolicyKey { side: 2, peer: n }, policy_value(n as u8)))
            .collect();
        let cidrs: Vec<_> = (0..20_000u32)
            .map(|n| {
                (
                    CidrKey {
                        prefix_len: 120,
                        address: [n.to_be(), 0, 0, 0],
                    },
                    n,
                )
            })
            .collect();
        let backends: Vec<_> = (0..20_000)
            .map(|n| {
                (
                    n,
                    Backend {
                        port: 1,
                        ..Backend::default()
                    },
                )
            })
            .collect();
        fills_and_empties::<Policy>(kernel, &policy);
        fills_and_empties::<Cidrs>(kernel, &cidrs);
        fills_and_empties::<Backends>(kernel, &backends);
    });
}

fn fills_and_empties<T: Table>(kernel: &mut Kernel, entries: &[(T::Key, T::Value)]) {
    kernel.write::<T>(entries).unwrap();
    assert_eq!(kernel.read::<T>().unwrap(), entries.iter().copied().collect());
    assert_eq!(kernel.capacity::<T>().unwrap() as usize, entries.len());
    // One that is absent in the middle of a batch must not keep the others.
    kernel.delete::<T>(&[entries[100].0]).unwrap();
    let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
    kernel.delete::<T>(&keys).unwrap();
    assert_eq!(kernel.read::<T>().unwrap(), BTreeMap::new());
}

#[test]
fn a_full_table_names_itself_the_key_and_its_capacity() {
    in_bed(|bed| {
        let mut config = bed.config();
        config.capacities = Capacities {
            workloads: 2,
            cidrs: 2,
            backends: 2,
            ..CAPACITIES
        };
        let kernel = &mut open(config);
        let workload = Workload::default();
        let entries: Vec<_> = (1..=3).map(|n| (address(n), workload)).collect();
        is_full::<Workloads>(kernel, &entries, "workloads", &format!("{:?}", address(3)));
        // What came before the one that was refused is in.
        assert_eq!(
            kernel.read::<Workloads>().unwrap(),
            entries[..2].iter().copied().collect()
        );

        let entries: Vec<_> = (1..=3).map(|n| (cidr(n), 1)).collect();
        is_full::<Cidrs>(kernel, &entries, "cidrs", &format!("{:?}", cidr(3)));
        is_full::<Backends>(kernel, &[(2, Backend::default())], "backends", "2");
    });
}

fn is_full<T: Table>(kernel: &mut Kernel, entries: &[(T::Key, T::Value)], map: &str, key: &str) {
    let error = kernel.write::<T>(entries).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(
        error.to_string(),
        format!("map {map}: writing {key}: the map is full, it has room for 2 entries")
    );
}

#[test]
fn control_and_overflow_are_single_values() {
    in_bed(|bed| {
        let kernel = &mut bed.kernel();
        assert_eq!(kernel.control().unwrap(), Control::default());
        let control = Control {
            revision: 7,
            log_budget: 1_000,
        };
        kernel.set_control(control).unwrap();
        assert_eq!(kernel.control().unwrap(), control);
        assert_eq!(kernel.overflow().unwrap(), 0);
    });
}

#[test]
fn counters_start_at_zero_and_rules_can_be_cleared() {
    in_bed(|bed| {
        let kernel = &mut bed.kernel();
        assert!(kernel.packets().unwrap().values().all(|count| *count == 0));
        assert_eq!(kernel.log_count().unwrap(), LogCount::default());
        assert_eq!(kernel.rule_counts().unwrap(), BTreeMap::<u32, RuleCount>::new());
        kernel.clear_rule_counts(&[3, 63]).unwrap();
        let error = kernel.clear_rule_counts(&[3, 64]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("map rule_counts: clearing rule 64: "),
            "{error}"
        );
    });
}

#[test]
fn only_idle_flows_expire() {
    in_bed(|bed| {
        let kernel = &mut bed.kernel();
        let now = 100_000;
        let answered = flow_flags::ANSWERED;
        let flows = [
            (key4(1, TCP), flow(now - 20, answered)),
            (key4(2, TCP), flow(now - 20, answered | flow_flags::CLOSED)),
            (key4(3, TCP), flow(now - 100, 0)),
            (key4(4, UDP), flow(now - 100, answered)),
            (key4(5, UDP), flow(now - 1_000, answered)),
        ];
        kernel.write_flows(&flows).unwrap();
        let kept = FlowTable {
            entries: 2,
            expired: 3,
            capacity: 1_000,
        };
        let none = FlowTable {
            entries: 0,
            expired: 0,
            capacity: 1_000,
        };
        assert_eq!(
            kernel.expire_flows(now).unwrap(),
            FlowTables { v4: kept, v6: none }
        );
        let mut left = BTreeMap::new();
        kernel
            .for_each_flow::<FlowKey4>(|key, flow| {
                left.insert(key, flow);
            })
            .unwrap();
        assert_eq!(left, [flows[0], flows[3]].into());
        let again = FlowTable { expired: 0, ..kept };
        assert_eq!(
            kernel.expire_flows(now).unwrap(),
            FlowTables { v4: again, v6: none }
        );
    });
}

fn address(n: u8) -> Address {
    Address::from_v4(u32::from(n))
}

fn cidr(n: u8) -> CidrKey {
    let prefix_len = 8 + u32::from(n % 16);
    CidrKey {
        prefix_len,
        address: [(u32::from(n) << 24).to_be(), 0, 0, 0],
    }
}

fn slots(n: u8) -> Slots {
    Slots {
        network_policy: n.into(),
        ..Slots::EMPTY
    }
}

fn policy_value(n: u8) -> PolicyValue {
    PolicyValue {
        enforced: slots(n),
        dry_run: Slots::EMPTY,
        port_table: 0,
        prefix_lens: 0,
    }
}
