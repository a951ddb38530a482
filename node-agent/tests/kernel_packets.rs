//! Programs run on packets: by `BPF_PROG_TEST_RUN`, and on interfaces while no agent runs.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kernel_bed;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel_bed::wire::Wire;
use kernel_bed::{Bed, CAPACITIES, in_bed, ip, open};
use nix::net::if_::if_nametoindex;
use weir_abi::address::{Address, AddressValue};
use weir_abi::config::Control;
use weir_abi::event::{FlowEvent, SideVerdict, side_verdict};
use weir_abi::explain::Explanation;
use weir_abi::flow::{FlowKey4, FlowKey6};
use weir_abi::policy::{ANY_PEER, EGRESS, NO_PORTS, PolicyKey, PolicyValue, RuleCount, side};
use weir_abi::reason::Reason;
use weir_abi::slots::{self, Slots};
use weir_abi::workload::{Workload, workload_flags};
use weir_agent::kernel::{Capacities, Config, Kernel, LogCount, Ring, TestPacket};
use weir_agent::table::{Addresses, Maps as _, Policy, Workloads};

const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const POD: [u8; 4] = [10, 0, 0, 1];
const OUTSIDE: [u8; 4] = [192, 0, 2, 9];
const POD_IDENTITY: u32 = 7;
const RULE: u32 = 5;

/// A pod that one rule lets speak to anybody, every connection logged.
fn pod(bed: &Bed, kernel: &mut Kernel) -> u32 {
    let ifindex = bed.veth("pod");
    let workload = Workload {
        ifindex,
        identity: POD_IDENTITY,
        policy_set: 1,
        flags: workload_flags::LOG_EGRESS_ALLOW,
        log_allow_every: 1,
        ..Workload::default()
    };
    let slots = Slots {
        network_policy: slots::slot(0, slots::ACCEPT, RULE),
        ..Slots::EMPTY
    };
    let allow = PolicyValue {
        enforced: slots,
        dry_run: slots,
        port_table: NO_PORTS,
        prefix_lens: 0,
    };
    let value = AddressValue {
        identity: POD_IDENTITY,
        flags: 0,
    };
    kernel
        .write::<Policy>(&[(
            PolicyKey {
                side: side(1, EGRESS),
                peer: ANY_PEER,
            },
            allow,
        )])
        .unwrap();
    kernel.write::<Workloads>(&[(address(POD), workload)]).unwrap();
    kernel.write::<Addresses>(&[(address(POD), value)]).unwrap();
    kernel
        .set_control(Control {
            revision: 1,
            log_budget: 1_000,
        })
        .unwrap();
    ifindex
}

fn address(octets: [u8; 4]) -> Address {
    Address::from_v4(u32::from_ne_bytes(octets))
}

/// The first packet of a TCP connection from the pod to port 80 outside.
fn syn(port: u16) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(POD);
    packet.extend(OUTSIDE);
    packet.extend(port.to_be_bytes());
    packet.extend(80u16.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

fn send(kernel: &Kernel, ifindex: u32, port: u16) -> i32 {
    let bytes = syn(port);
    let outcome = kernel
        .test_run(
            "from_pod",
            &TestPacket {
                bytes: &bytes,
                ifindex,
                repeat: 1,
            },
        )
        .unwrap();
    assert_eq!(
        outcome.packet, bytes,
        "nothing is translated, so nothing is rewritten"
    );
    outcome.return_value
}

/// Counters that moved.
fn counted(kernel: &Kernel) -> BTreeMap<Reason, u64> {
    kernel
        .packets()
        .unwrap()
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .collect()
}

/// Source ports of the records in the ring.
fn ports(ring: &mut Ring) -> Vec<u16> {
    let mut ports = Vec::new();
    let drained = ring.drain(|record| {
        assert_eq!(record.len(), size_of::<FlowEvent>());
        let at = std::mem::offset_of!(FlowEvent, source_port);
        ports.push(u16::from_be_bytes([record[at], record[at + 1]]));
    });
    assert_eq!(drained, ports.len());
    ports
}

#[test]
fn a_packet_of_nobody_is_dropped_and_counted() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        pod(bed, &mut kernel);
        let other = bed.veth("other");
        assert_eq!(send(&kernel, other, 1_000), TC_ACT_SHOT);
        assert_eq!(counted(&kernel).values().sum::<u64>(), 1);
        assert!(
            counted(&kernel).keys().all(|reason| !reason.is_forward()),
            "{:?}",
            counted(&kernel)
        );
        let missing = TestPacket {
            bytes: &syn(1),
            ifindex: 9_999,
            repeat: 1,
        };
        let error = format!("{:#}", kernel.test_run("from_pod", &missing).unwrap_err());
        assert_eq!(
            error,
            "running from_pod on a test packet: No such device (os error 19)"
        );
        let error = format!("{:#}", kernel.test_run("nothing", &missing).unwrap_err());
        assert_eq!(error, "the object has no program nothing");
    });
}

#[test]
fn repeated_runs_are_timed() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        let ifindex = pod(bed, &mut kernel);
        let packet = TestPacket {
            bytes: &syn(1_000),
            ifindex,
            repeat: 1_000,
        };
        let outcome = kernel.test_run("from_pod", &packet).unwrap();
        assert_eq!(outcome.return_value, TC_ACT_OK);
        assert!((1..100_000).contains(&outcome.nanos_per_run), "{outcome:?}");
        assert_eq!(counted(&kernel).values().sum::<u64>(), 1_000);
    });
}

#[test]
fn records_come_once_in_order_and_survive_a_restart() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        let ifindex = pod(bed, &mut kernel);
        let mut ring = kernel.ring().unwrap();
        assert_eq!(ports(&mut ring), Vec::<u16>::new());
        for port in [1_000, 1_001, 1_002] {
            assert_eq!(send(&kernel, ifindex, port), TC_ACT_OK);
        }
        assert_eq!(ports(&mut ring), [1_000, 1_001, 1_002]);
        assert_eq!(ports(&mut ring), Vec::<u16>::new());
        assert_eq!(kernel.log_count().unwrap(), LogCount { due: 3, lost: 0 });

        // What one agent did not read, the next one does; what it read does not come again.
        send(&kernel, ifindex, 1_003);
        drop((kernel, ring));
        let mut kernel = bed.kernel();
        let mut ring = kernel.ring().unwrap();
        send(&kernel, ifindex, 1_004);
        assert_eq!(ports(&mut ring), [1_003, 1_004]);

        // Growth leaves the ring as it is.
        kernel
            .grow(Capacities {
                rules: 128,
                flows: 2_000,
                ..CAPACITIES
            })
            .unwrap();
        send(&kernel, ifindex, 1_005);
        assert_eq!(ports(&mut ring), [1_005]);

        kernel
            .set_control(Control {
                revision: 1,
                log_budget: 0,
            })
            .unwrap();
        send(&kernel, ifindex, 1_006);
        assert_eq!(ports(&mut ring), Vec::<u16>::new());
        assert_eq!(kernel.log_count().unwrap(), LogCount { due: 7, lost: 1 });
    });
}

#[test]
fn rule_counts_survive_growth_and_can_be_cleared() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        let ifindex = pod(bed, &mut kernel);
        for port in 0..10 {
            send(&kernel, ifindex, 1_000 + port);
        }
        let ten = RuleCount {
            allowed: 10,
            denied: 0,
            logged: 10,
            lost: 0,
        };
        assert_eq!(kernel.rule_counts().unwrap(), [(RULE, ten)].into());
        kernel
            .grow(Capacities {
                rules: 4_096,
                ..CAPACITIES
            })
            .unwrap();
        assert_eq!(kernel.rule_counts().unwrap(), [(RULE, ten)].into());
        send(&kernel, ifindex, 2_000);
        let eleven = RuleCount {
            allowed: 11,
            logged: 11,
            ..ten
        };
        assert_eq!(kernel.rule_counts().unwrap(), [(RULE, eleven)].into());
        kernel.clear_rule_counts(&[RULE, 4_095]).unwrap();
        assert_eq!(kernel.rule_counts().unwrap(), BTreeMap::new());
    });
}

/// Flow entries that are written while a table is copied must not be lost, whatever moment they choose.
#[test]
fn growing_under_traffic_loses_no_flow() {
    in_bed(|bed| {
        let mut capacities = Capacities {
            flows: 50_000,
            ..CAPACITIES
        };
        let mut kernel = open(Config {
            capacities,
            ..bed.config()
        });
        let ifindex = pod(bed, &mut kernel);
        kernel.attach_pod(ifindex).unwrap();
        ip(&["link", "set", "pod", "up"]);
        ip(&["link", "set", "pod-peer", "up"]);
        let peer = Wire::open(if_nametoindex("pod-peer").unwrap()).unwrap();
        let stop = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    // Every packet is the first of its connection.
                    peer.send(&syn(u16::try_from(sent + 1).unwrap())).unwrap();
                    sent += 1;
                    thread::sleep(Duration::from_micros(50));
                }
                sent
            });
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(20));
                capacities.flows += 1_000;
                capacities.rules += 64;
                kernel.grow(capacities).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        let patience = Instant::now() + Duration::from_secs(10);
        while flows(&kernel) < sent && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(flows(&kernel), sent);
        // A count that moves in the very moment in which it is added to may lose a step.
        let counted = kernel.rule_counts().unwrap()[&RULE].allowed;
        assert!((sent - 10..=sent).contains(&counted), "{counted} of {sent}");
    });
}

fn flows(kernel: &Kernel) -> u64 {
    let mut flows = 0;
    kernel.for_each_flow::<FlowKey4>(|_, _| flows += 1).unwrap();
    flows
}

#[test]
fn explain_answers_and_changes_nothing() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        let ifindex = pod(bed, &mut kernel);
        let allowed = SideVerdict {
            rule: RULE,
            dry_run_rule: RULE,
            verdict: side_verdict::ALLOW,
            dry_run_verdict: side_verdict::ALLOW,
            padding: 0,
        };
        let expected = Explanation {
            reason: Reason::Allowed as u8,
            has_flow: 0,
            padding: [0; 2],
            source_identity: POD_IDENTITY,
            destination_identity: 0,
            destination_port: 80u16.to_be(),
            padding2: 0,
            destination: address(OUTSIDE),
            egress: allowed,
            ingress: SideVerdict::default(),
        };
        assert_eq!(kernel.explain(&syn(1_000), ifindex).unwrap(), expected);
        assert_eq!(counted(&kernel), BTreeMap::new());
        assert_eq!(kernel.rule_counts().unwrap(), BTreeMap::new());
        assert_eq!(kernel.log_count().unwrap(), LogCount::default());
        let mut flows = 0;
        kernel.for_each_flow::<FlowKey4>(|_, _| flows += 1).unwrap();
        kernel.for_each_flow::<FlowKey6>(|_, _| flows += 1).unwrap();
        assert_eq!(flows, 0);

        send(&kernel, ifindex, 1_000);
        assert_eq!(
            kernel.explain(&syn(1_000), ifindex).unwrap(),
            Explanation {
                has_flow: 1,
                ..expected
            }
        );
    });
}

#[test]
fn programs_go_on_whole_when_their_agent_is_gone() {
    in_bed(|bed| {
        let uplink = bed.veth("uplink");
        let mut kernel = bed.kernel();
        kernel.attach_uplink(uplink).unwrap();
        drop(kernel);
        // The other end announces itself: packets that the slow path decides, reached through a program array.
        ip(&["link", "set", "uplink", "up"]);
        ip(&["link", "set", "uplink-peer", "up"]);
        let patience = Instant::now() + Duration::from_secs(10);
        while received("uplink") == 0 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        let counted = counted(&bed.kernel());
        assert!(counted.values().sum::<u64>() > 0, "nothing came");
        assert_eq!(counted.get(&Reason::Internal), None);
    });
}

fn received(interface: &str) -> u64 {
    let shown = kernel_bed::run("ip", &["-s", "-o", "link", "show", interface]);
    // ... RX: bytes packets errors ...\ 0 0 0 ...\ TX: ...
    let numbers = shown.split("RX:").nth(1).and_then(|rx| rx.split('\\').nth(1));
    let packets = numbers.and_then(|numbers| numbers.split_whitespace().nth(1));
    packets
        .and_then(|packets| packets.parse().ok())
        .unwrap_or_else(|| panic!("{shown}"))
}
