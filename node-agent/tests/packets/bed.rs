//! Two pods on a node, a policy, and programs that are run on packets: everything that a run did is one value.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Sub as _;

use weir_abi::address::{Address, AddressValue, CidrKey, address_flags};
use weir_abi::config::Control;
use weir_abi::event::{EVENT_VERSION, FlowEvent, SideVerdict, event_flags, side_verdict};
use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue};
use weir_abi::policy::{
    ANY_PEER, CIDR_PEER, EGRESS, INGRESS, NO_PORTS, PolicyKey, PolicyValue, RuleCount, side,
};
use weir_abi::reason::Reason;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::slots::{ACCEPT, DENY, Slots, slot};
use weir_abi::workload::{Workload, workload_flags};
use weir_agent::contents::Contents;
use weir_agent::flow::decode::decode;
use weir_agent::kernel::{Capacities, FlowKey, Kernel, LogCount, Ring, TestPacket};
use weir_agent::sync::Sync;
use weir_agent::table::Maps as _;

use crate::kernel_bed::{Bed, CAPACITIES, open};

pub const TC_ACT_OK: i32 = 0;
pub const TC_ACT_SHOT: i32 = 2;
pub const TC_ACT_REDIRECT: i32 = 7;

/// Rules of the two pods' policy.
pub mod rule {
    pub const A_TO_B: u32 = 11;
    pub const A_TO_STRANGER: u32 = 12;
    pub const A_ISOLATED: u32 = 19;
    pub const B_FROM_A: u32 = 21;
    pub const B_FROM_STRANGER: u32 = 22;
    pub const B_ISOLATED: u32 = 29;
}

pub mod identity {
    pub const A: u32 = 1;
    pub const B: u32 = 2;
    pub const REMOTE: u32 = 9;
}

pub const A_SET: u32 = 1;
const B_SET: u32 = 2;
const STRANGERS_4: u32 = 41;
const STRANGERS_6: u32 = 61;
const LOG_ALL: u32 = workload_flags::LOG_INGRESS_ALLOW
    | workload_flags::LOG_INGRESS_DENY
    | workload_flags::LOG_EGRESS_ALLOW
    | workload_flags::LOG_EGRESS_DENY;
const BUDGET: u32 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

macro_rules! addresses {
    ($($(#[$doc:meta])* $who:ident $v4:literal $v6:literal;)+) => {
        impl Family {
            $($(#[$doc])* pub fn $who(self) -> IpAddr {
                let text = if self == Self::V4 { $v4 } else { $v6 };
                text.parse().expect("an address")
            })+
        }
    };
}

addresses! {
    a "10.0.0.1" "fd00::1";
    b "10.0.0.2" "fd00::2";
    /// This node.
    node "10.9.0.1" "fd00:9::1";
    /// A pod of another node that no rule names.
    remote "10.0.1.1" "fd00:0:0:1::1";
    /// Somebody whom rules name by a CIDR.
    stranger "192.0.2.9" "2001:db8::9";
    /// Somebody whom nothing names.
    unknown "198.51.100.7" "2001:dead::7";
    /// The address of all Services.
    service "10.96.0.1" "fd00:96::1";
}

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub action: i32,
    pub packet: Vec<u8>,
    /// Counters that moved, and by how much.
    pub reasons: BTreeMap<Reason, u64>,
    /// Rule counts that moved, and by how much.
    pub rules: BTreeMap<u32, RuleCount>,
    /// Without CPU, sequence and time.
    pub records: Vec<FlowEvent>,
    /// By how much the flow tables grew.
    pub flows: i64,
}

impl Seen {
    /// A packet that left and did nothing but being counted.
    pub fn only(action: i32, packet: &[u8], reason: Reason) -> Self {
        Self {
            action,
            packet: packet.to_vec(),
            reasons: [(reason, 1)].into(),
            rules: BTreeMap::new(),
            records: Vec::new(),
            flows: 0,
        }
    }

    pub fn dropped(packet: &[u8], reason: Reason) -> Self {
        Self::only(TC_ACT_SHOT, packet, reason)
    }

    pub fn passed(packet: &[u8], reason: Reason) -> Self {
        Self::only(TC_ACT_OK, packet, reason)
    }

    pub fn flows(self, flows: i64) -> Self {
        Self { flows, ..self }
    }

    pub fn rules(self, rules: &[(u32, RuleCount)]) -> Self {
        Self {
            rules: rules.iter().copied().collect(),
            ..self
        }
    }

    pub fn record(self, record: FlowEvent) -> Self {
        Self {
            records: vec![record],
            ..self
        }
    }
}

/// One connection allowed, and logged.
pub const ALLOWED: RuleCount = RuleCount {
    allowed: 1,
    denied: 0,
    logged: 1,
    lost: 0,
};

/// One packet denied, and logged.
pub const DENIED: RuleCount = RuleCount {
    allowed: 0,
    denied: 1,
    logged: 1,
    lost: 0,
};

pub struct Scene {
    pub kernel: Kernel,
    pub contents: Contents,
    pub a: u32,
    pub b: u32,
    /// An interface that is no pod's.
    pub other: u32,
    sync: Sync,
    ring: Ring,
    counters: Counters,
}

/// Everything that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters {
    reasons: BTreeMap<Reason, u64>,
    rules: BTreeMap<u32, RuleCount>,
    log: LogCount,
    flows: i64,
}

impl Counters {
    fn read(kernel: &Kernel) -> Self {
        Self {
            reasons: kernel.packets().expect("counters"),
            rules: kernel.rule_counts().expect("rule counts"),
            log: kernel.log_count().expect("the log count"),
            flows: (flows::<FlowKey4>(kernel).len() + flows::<FlowKey6>(kernel).len()) as i64,
        }
    }
}

pub fn flows<K: FlowKey + Ord>(kernel: &Kernel) -> BTreeMap<K, FlowValue> {
    let mut flows = BTreeMap::new();
    kernel
        .for_each_flow(|key, value| {
            flows.insert(key, value);
        })
        .expect("flows");
    flows
}

impl Scene {
    pub fn new(bed: &Bed) -> Self {
        Self::sized(bed, CAPACITIES)
    }

    pub fn sized(bed: &Bed, capacities: Capacities) -> Self {
        let (a, b, other) = (bed.veth("pod-a"), bed.veth("pod-b"), bed.veth("elsewhere"));
        let mut config = bed.config();
        config.capacities = capacities;
        let mut kernel = open(config);
        kernel
            .set_control(Control {
                revision: 1,
                log_budget: BUDGET,
            })
            .expect("control");
        let ring = kernel.ring().expect("the ring");
        let counters = Counters::read(&kernel);
        let mut scene = Self {
            kernel,
            contents: contents(a, b),
            a,
            b,
            other,
            sync: Sync::default(),
            ring,
            counters,
        };
        scene.change(|_| {});
        scene
    }

    /// Programs what the contents are after `change`.
    pub fn change(&mut self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents);
        self.sync
            .apply(&mut self.kernel, self.contents.clone())
            .expect("room in the maps");
    }

    /// Another decision, without any other set: what an agent does in steps, at once.
    pub fn decide(&mut self, direction: u32, peer: u32, value: PolicyValue) {
        let set = if direction == EGRESS { A_SET } else { B_SET };
        let key = PolicyKey {
            side: side(set, direction),
            peer,
        };
        self.change(|contents| {
            contents.policy.insert(key, value);
        });
    }

    pub fn log(&mut self, flags: u32, every: u32) {
        self.change(|contents| {
            for workload in contents.workloads.values_mut() {
                workload.flags = workload.flags & !LOG_ALL | flags;
                workload.log_allow_every = every;
            }
        });
    }

    pub fn budget(&mut self, log_budget: u32) {
        let control = self.kernel.control().expect("control");
        self.kernel
            .set_control(Control {
                log_budget,
                ..control
            })
            .expect("control");
    }

    /// Runs a program on a packet.
    pub fn run(&mut self, program: &str, ifindex: u32, packet: &[u8]) -> Seen {
        let outcome = self
            .kernel
            .test_run(
                program,
                &TestPacket {
                    bytes: packet,
                    ifindex,
                    repeat: 1,
                },
            )
            .unwrap_or_else(|error| panic!("{error:#}"));
        let before = std::mem::replace(&mut self.counters, Counters::read(&self.kernel));
        let after = &self.counters;
        let mut records = Vec::new();
        self.ring.drain(|bytes| {
            let record = decode(bytes).unwrap_or_else(|error| panic!("{error}"));
            records.push(FlowEvent {
                cpu: 0,
                sequence: 0,
                time: 0,
                ..record
            });
        });
        let log = (after.log.due - before.log.due, after.log.lost - before.log.lost);
        assert_eq!(log.0 - log.1, records.len() as u64, "due, and not lost");
        Seen {
            action: outcome.return_value,
            packet: outcome.packet,
            reasons: moved(&before.reasons, &after.reasons, u64::sub),
            rules: moved(&before.rules, &after.rules, fewer),
            records,
            flows: after.flows - before.flows,
        }
    }

    pub fn sent_by_a(&mut self, packet: &[u8]) -> Seen {
        self.run("from_pod", self.a, packet)
    }

    pub fn sent_by_b(&mut self, packet: &[u8]) -> Seen {
        self.run("from_pod", self.b, packet)
    }

    /// A packet that the programs hand over to the pod on another interface.
    pub fn handed_to_a(&self, packet: &[u8], reason: Reason) -> Seen {
        self.handed_to(Family::V4.a(), packet, reason)
    }

    pub fn handed_to_b(&self, packet: &[u8], reason: Reason) -> Seen {
        self.handed_to(Family::V4.b(), packet, reason)
    }

    fn handed_to(&self, pod: IpAddr, packet: &[u8], reason: Reason) -> Seen {
        let pod = &self.contents.workloads[&Address::from_ip(pod)];
        Seen::only(TC_ACT_REDIRECT, &framed(packet, pod), reason)
    }
}

/// The packet with the Ethernet addresses by which a pod gets it.
pub fn framed(packet: &[u8], pod: &Workload) -> Vec<u8> {
    let mut framed = packet.to_vec();
    framed[..6].copy_from_slice(&pod.pod_mac);
    framed[6..12].copy_from_slice(&pod.host_mac);
    framed
}

fn moved<K: Ord + Copy, C: Copy + Default + PartialEq>(
    before: &BTreeMap<K, C>,
    after: &BTreeMap<K, C>,
    less: impl Fn(C, C) -> C,
) -> BTreeMap<K, C> {
    let moved = after.iter().map(|(key, count)| {
        let before = before.get(key).copied().unwrap_or_default();
        (*key, less(*count, before))
    });
    moved.filter(|(_, count)| *count != C::default()).collect()
}

fn fewer(after: RuleCount, before: RuleCount) -> RuleCount {
    RuleCount {
        allowed: after.allowed - before.allowed,
        denied: after.denied - before.denied,
        logged: after.logged - before.logged,
        lost: after.lost - before.lost,
    }
}

/// A record of a connection between two ends, without a Service.
pub fn record(reason: Reason, protocol: u8, source: (IpAddr, u16), destination: (IpAddr, u16)) -> FlowEvent {
    FlowEvent {
        version: EVENT_VERSION,
        cpu: 0,
        reason: reason as u8,
        protocol,
        detail: 0,
        flags: 0,
        sequence: 0,
        time: 0,
        source: Address::from_ip(source.0),
        destination: Address::from_ip(destination.0),
        service: Address::default(),
        source_port: source.1.to_be(),
        destination_port: destination.1.to_be(),
        service_port: 0,
        padding: 0,
        source_identity: identity_of(source.0),
        destination_identity: identity_of(destination.0),
        egress: SideVerdict::NOT_JUDGED,
        ingress: SideVerdict::NOT_JUDGED,
    }
}

fn identity_of(ip: IpAddr) -> u32 {
    let known = FAMILIES.into_iter().flat_map(identities);
    known
        .filter_map(|(address, identity)| (address == ip).then_some(identity))
        .next()
        .unwrap_or_default()
}

fn identities(family: Family) -> [(IpAddr, u32); 3] {
    [
        (family.a(), identity::A),
        (family.b(), identity::B),
        (family.remote(), identity::REMOTE),
    ]
}

/// The record of the connection from A to B that policy allows.
pub fn a_to_b(
    protocol: u8,
    detail: u8,
    source_port: u16,
    destination_port: u16,
    family: Family,
) -> FlowEvent {
    FlowEvent {
        detail,
        flags: event_flags::LOG_EGRESS | event_flags::LOG_INGRESS,
        egress: by(side_verdict::ALLOW, rule::A_TO_B),
        ingress: by(side_verdict::ALLOW, rule::B_FROM_A),
        ..record(
            Reason::Allowed,
            protocol,
            (family.a(), source_port),
            (family.b(), destination_port),
        )
    }
}

/// The enforced decision and the dry run's, which are the same.
pub fn by(verdict: u8, rule: u32) -> SideVerdict {
    SideVerdict {
        rule,
        dry_run_rule: rule,
        verdict,
        dry_run_verdict: verdict,
        padding: 0,
    }
}

pub fn accept(rule: u32) -> PolicyValue {
    policy(Slots {
        network_policy: slot(7, ACCEPT, rule),
        ..Slots::EMPTY
    })
}

/// What isolation, or a rule of a NetworkPolicy's tier, denies.
pub fn deny(rule: u32) -> PolicyValue {
    policy(Slots {
        network_policy: slot(9, DENY, rule),
        ..Slots::EMPTY
    })
}

/// What a rule of the Admin tier denies.
pub fn deny_by_admin(rule: u32) -> PolicyValue {
    policy(Slots {
        admin: slot(1, DENY, rule),
        ..Slots::EMPTY
    })
}

fn policy(slots: Slots) -> PolicyValue {
    PolicyValue {
        enforced: slots,
        dry_run: slots,
        port_table: NO_PORTS,
        prefix_lens: 0,
    }
}

/// A may speak to B and to strangers, B may be spoken to by A and by strangers, and that is all.
fn contents(a: u32, b: u32) -> Contents {
    let workload = |ifindex, identity, policy_set, number| Workload {
        ifindex,
        identity,
        policy_set,
        flags: LOG_ALL | workload_flags::INGRESS_CIDRS | workload_flags::EGRESS_CIDRS,
        pod_mac: [2, 0, 0, 1, 0, number],
        host_mac: [2, 0, 0, 2, 0, number],
        log_allow_every: 1,
    };
    let mut contents = Contents::default();
    for family in FAMILIES {
        let pods = [
            (family.a(), workload(a, identity::A, A_SET, 1)),
            (family.b(), workload(b, identity::B, B_SET, 2)),
        ];
        let pods = pods.map(|(ip, workload)| (Address::from_ip(ip), workload));
        contents.workloads.extend(pods);
        let pods = identities(family).map(|(ip, identity)| (ip, AddressValue { identity, flags: 0 }));
        let node = AddressValue {
            identity: 0,
            flags: address_flags::LOCAL_NODE,
        };
        let addresses = pods.into_iter().chain([(family.node(), node)]);
        contents
            .addresses
            .extend(addresses.map(|(ip, value)| (Address::from_ip(ip), value)));
    }
    let cidr = |text: &str, prefix_len| CidrKey {
        prefix_len,
        address: Address::from_ip(text.parse().expect("an address")).0,
    };
    contents.cidrs = [
        (cidr("192.0.2.0", 120), STRANGERS_4),
        (cidr("2001:db8::", 32), STRANGERS_6),
    ]
    .into();
    let (of_a, of_b) = (side(A_SET, EGRESS), side(B_SET, INGRESS));
    let entries = [
        (of_a, ANY_PEER, deny(rule::A_ISOLATED)),
        (of_a, identity::B, accept(rule::A_TO_B)),
        (of_a, CIDR_PEER | STRANGERS_4, accept(rule::A_TO_STRANGER)),
        (of_a, CIDR_PEER | STRANGERS_6, accept(rule::A_TO_STRANGER)),
        (of_b, ANY_PEER, deny(rule::B_ISOLATED)),
        (of_b, identity::A, accept(rule::B_FROM_A)),
        (of_b, CIDR_PEER | STRANGERS_4, accept(rule::B_FROM_STRANGER)),
        (of_b, CIDR_PEER | STRANGERS_6, accept(rule::B_FROM_STRANGER)),
    ];
    contents.policy = entries
        .map(|(side, peer, value)| (PolicyKey { side, peer }, value))
        .into();
    contents
}

/// Adds a Service at the address of all Services.
pub fn serve(contents: &mut Contents, ip: IpAddr, port: u16, protocol: u8, backends: &[(IpAddr, u16)]) {
    let first = contents
        .backends
        .last_key_value()
        .map_or(0, |(index, _)| index + 1);
    let key = ServiceKey {
        address: Address::from_ip(ip),
        port: port.to_be(),
        protocol,
        padding: [0; 5],
    };
    let count = backends.len() as u32;
    contents.services.insert(key, ServiceValue { first, count });
    let backends = backends.iter().map(|(ip, port)| Backend {
        address: Address::from_ip(*ip),
        port: port.to_be(),
        padding: [0; 3],
    });
    contents.backends.extend((first..).zip(backends));
}
