//! Whatever the maps hold: the decision follows the order that `judge` documents, and nothing panics.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use weir_abi::address::{Address, AddressValue, CidrKey, UNKNOWN_IDENTITY, UNKNOWN_POD, address_flags};
use weir_abi::config::{NON_MASQUERADE, POD_RANGE};
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::policy::{
    ANY_PEER, CIDR_PEER, EGRESS, INGRESS, NO_RULE, PolicyKey, PolicyValue, PortKey, PortValue, side,
};
use weir_abi::reason::Reason;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::slots::{self, ACCEPT, DENY, EMPTY, PASS, Slots, slot};
use weir_abi::workload::{Workload, workload_flags};
use weir_datapath::judge::{Connection, Judgement, judge};
use weir_datapath::service::{Destination, resolve};
use weir_datapath::tables::Tables;

#[derive(Debug, Clone, Default)]
struct Maps {
    addresses: BTreeMap<Address, AddressValue>,
    /// The number of the one CIDR that every address is in.
    cidr: Option<u32>,
    /// The value of the one range that every address is in.
    range: Option<u32>,
    policy: BTreeMap<PolicyKey, PolicyValue>,
    ports: BTreeMap<PortKey, PortValue>,
    services: BTreeMap<ServiceKey, ServiceValue>,
    backends: BTreeMap<u32, Backend>,
}

impl Tables for Maps {
    fn workload(&self, _: &Address) -> Option<&Workload> {
        None
    }

    fn address(&self, address: &Address) -> Option<&AddressValue> {
        self.addresses.get(address)
    }

    fn cidr(&self, _: &CidrKey) -> Option<u32> {
        self.cidr
    }

    fn range(&self, _: &CidrKey) -> Option<u32> {
        self.range
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyValue> {
        self.policy.get(key)
    }

    fn port(&self, key: &PortKey) -> Option<&PortValue> {
        self.ports.get(key)
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceValue> {
        self.services.get(key)
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(&index)
    }
}

const SOURCE: Address = Address([1, 0, 0, 1]);
const DESTINATION: Address = Address([1, 0, 0, 2]);
const PROTOCOLS: [u8; 3] = [1, 6, 17];
const PORTS: [u16; 5] = [0, 79, 80, 0x8000, 0xffff];
/// Policy sets, identities, CIDRs and port tables have few numbers, so that they meet.
const NUMBERS: [u32; 2] = [1, 2];

fn slots() -> impl Strategy<Value = Slots> {
    let one = || {
        prop_oneof![
            2 => Just(EMPTY),
            6 => (0u32..5, select(vec![ACCEPT, DENY, PASS]), 1u32..9).prop_map(|(rank, action, rule)| slot(rank, action, rule)),
        ]
    };
    // A NetworkPolicy has no Pass.
    let middle = one().prop_map(|slot| if slots::action(slot) == PASS { EMPTY } else { slot });
    (one(), middle, one()).prop_map(|(admin, network_policy, baseline)| Slots {
        admin,
        network_policy,
        baseline,
    })
}

fn maps() -> impl Strategy<Value = Maps> {
    let peer = select(vec![ANY_PEER, 1, 2, UNKNOWN_POD, CIDR_PEER | 1]);
    let key = (select(NUMBERS.to_vec()), select(vec![INGRESS, EGRESS]), peer);
    let key = key.prop_map(|(set, direction, peer)| PolicyKey {
        side: side(set, direction),
        peer,
    });
    let value = (slots(), slots(), 0u32..3).prop_map(|(enforced, dry_run, port_table)| PolicyValue {
        enforced,
        dry_run,
        port_table,
        prefix_lens: 0,
    });
    let port = (
        select(NUMBERS.to_vec()),
        select(PORTS.to_vec()),
        select(PROTOCOLS.to_vec()),
        0u32..5,
    );
    let port = port.prop_map(|(table, port, protocol, fourth)| {
        let prefix_len = fourth * 4;
        PortKey {
            table,
            port: port & mask(prefix_len),
            protocol,
            prefix_len: prefix_len as u8,
        }
    });
    let decision = (slots(), slots()).prop_map(|(enforced, dry_run)| PortValue { enforced, dry_run });
    let identity = (
        select(vec![UNKNOWN_IDENTITY, 1, 2]),
        select(vec![0, 0, 0, address_flags::LOCAL_NODE]),
    );
    let identity = identity.prop_map(|(identity, flags)| AddressValue { identity, flags });
    (
        btree_map(select(vec![SOURCE, DESTINATION]), identity, 0..3),
        (
            select(vec![None, Some(1)]),
            select(vec![None, Some(NON_MASQUERADE), Some(NON_MASQUERADE | POD_RANGE)]),
        ),
        btree_map(key, value, 0..12),
        btree_map(port, decision, 0..12),
    )
        .prop_map(|(addresses, (cidr, range), policy, ports)| {
            let mut maps = Maps {
                addresses,
                cidr,
                range,
                policy,
                ports,
                ..Maps::default()
            };
            for value in maps.policy.values_mut() {
                let keys = maps.ports.keys().filter(|key| key.table == value.port_table);
                value.prefix_lens = keys.fold(0, |lens, key| lens | 1 << key.prefix_len);
            }
            maps
        })
}

fn mask(prefix_len: u32) -> u16 {
    u16::MAX.checked_shl(16 - prefix_len).unwrap_or(0)
}

fn pod() -> impl Strategy<Value = Workload> {
    let flags = [
        0,
        workload_flags::INGRESS_CIDRS,
        workload_flags::EGRESS_CIDRS,
        workload_flags::INGRESS_CIDRS | workload_flags::EGRESS_CIDRS,
        workload_flags::CLOSED,
    ];
    (0u32..3, 1u32..3, 0u32..3, select(flags.to_vec())).prop_map(|(ifindex, identity, policy_set, flags)| {
        if ifindex == 0 {
            return Workload::default();
        }
        Workload {
            ifindex,
            identity,
            policy_set,
            flags,
            ..Workload::default()
        }
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let destination = prop_oneof![9 => Just(DESTINATION), 1 => Just(SOURCE)];
    (
        pod(),
        pod(),
        destination,
        select(PORTS.to_vec()),
        select(PROTOCOLS.to_vec()),
    )
        .prop_map(
            |(source_pod, destination_pod, destination, port, protocol)| Connection {
                source: SOURCE,
                destination,
                source_pod,
                destination_pod,
                source_port: 4_000u16.to_be(),
                destination_port: port.to_be(),
                protocol,
                padding: [0; 3],
            },
        )
}

/// What one side's entries say, in the words of the module: of every entry that is found, the slots of the longest
/// port prefix; of these the lowest rank in each tier; the first tier that is final.
fn side_says(
    maps: &Maps,
    pod: &Workload,
    direction: u32,
    peer: u32,
    c: &Connection,
) -> (SideVerdict, Reason) {
    if pod.flags & workload_flags::CLOSED != 0 {
        let closed = SideVerdict {
            verdict: side_verdict::DENY,
            ..SideVerdict::NOT_JUDGED
        };
        return (closed, Reason::PodClosed);
    }
    let entry = |peer| {
        maps.policy.get(&PolicyKey {
            side: side(pod.policy_set, direction),
            peer,
        })
    };
    let mut found = Vec::new();
    let is_pod = maps.range.is_some_and(|range| range & POD_RANGE != 0);
    let peer = if peer == UNKNOWN_IDENTITY && is_pod {
        UNKNOWN_POD
    } else {
        peer
    };
    if pod.policy_set != 0 {
        let own = if peer == UNKNOWN_IDENTITY {
            None
        } else {
            entry(peer)
        };
        found.extend(own.or_else(|| entry(ANY_PEER)));
        let flag = if direction == EGRESS {
            workload_flags::EGRESS_CIDRS
        } else {
            workload_flags::INGRESS_CIDRS
        };
        if pod.flags & flag != 0 {
            found.extend(maps.cidr.and_then(|number| entry(CIDR_PEER | number)));
        }
    }
    let decisions: Vec<PortValue> = found.into_iter().map(|entry| by_port(maps, entry, c)).collect();
    let says = |slots: fn(&PortValue) -> Slots| {
        let best =
            |tier: fn(&Slots) -> u64| decisions.iter().map(|it| tier(&slots(it))).min().unwrap_or(EMPTY);
        let tiers = [
            (best(|slots| slots.admin), Reason::RuleDenied),
            (best(|slots| slots.network_policy), Reason::Isolated),
            (best(|slots| slots.baseline), Reason::RuleDenied),
        ];
        let last = tiers
            .into_iter()
            .find(|(slot, _)| *slot != EMPTY && slots::action(*slot) != PASS);
        match last {
            None => (side_verdict::ALLOW, NO_RULE, Reason::DefaultAllowed),
            Some((slot, _)) if slots::action(slot) == ACCEPT => {
                (side_verdict::ALLOW, slots::rule(slot), Reason::Allowed)
            }
            Some((slot, _)) if peer == UNKNOWN_POD => {
                (side_verdict::DENY, slots::rule(slot), Reason::PeerUnknown)
            }
            Some((slot, denial)) => (side_verdict::DENY, slots::rule(slot), denial),
        }
    };
    let (verdict, rule, reason) = says(|decision| decision.enforced);
    let (dry_run_verdict, dry_run_rule, _) = says(|decision| decision.dry_run);
    let says = SideVerdict {
        rule,
        dry_run_rule,
        verdict,
        dry_run_verdict,
        padding: 0,
    };
    (says, reason)
}

fn by_port(maps: &Maps, entry: &PolicyValue, c: &Connection) -> PortValue {
    let port = u16::from_be(c.destination_port);
    let holds = |key: &PortKey| {
        key.table == entry.port_table
            && key.protocol == c.protocol
            && key.port == port & mask(u32::from(key.prefix_len))
    };
    let longest = maps
        .ports
        .iter()
        .filter(|(key, _)| holds(key))
        .max_by_key(|(key, _)| key.prefix_len);
    longest.map_or(
        PortValue {
            enforced: entry.enforced,
            dry_run: entry.dry_run,
        },
        |(_, value)| *value,
    )
}

fn model(maps: &Maps, c: &Connection) -> (Reason, SideVerdict, SideVerdict) {
    let none = SideVerdict::NOT_JUDGED;
    let (from_pod, to_pod) = (c.source_pod.ifindex != 0, c.destination_pod.ifindex != 0);
    let owner = |address: &Address| maps.addresses.get(address).copied().unwrap_or_default();
    let identity = |pod: &Workload, address| {
        if pod.ifindex != 0 {
            pod.identity
        } else {
            owner(address).identity
        }
    };
    if !from_pod && !to_pod {
        return (Reason::NotForPod, none, none);
    }
    if from_pod && to_pod && c.source == c.destination {
        return (Reason::ToItself, none, none);
    }
    let is_node = |address| owner(address).flags & address_flags::LOCAL_NODE != 0;
    if !to_pod && is_node(&c.destination) || !from_pod && is_node(&c.source) {
        return (Reason::LocalNode, none, none);
    }
    let mut reason = Reason::DefaultAllowed;
    let (mut egress, mut ingress) = (none, none);
    if from_pod {
        let peer = identity(&c.destination_pod, &c.destination);
        (egress, reason) = side_says(maps, &c.source_pod, EGRESS, peer, c);
    }
    if to_pod && reason.is_forward() {
        let peer = identity(&c.source_pod, &c.source);
        let (says, by_ingress) = side_says(maps, &c.destination_pod, INGRESS, peer, c);
        ingress = says;
        if by_ingress != Reason::DefaultAllowed {
            reason = by_ingress;
        }
    }
    (reason, egress, ingress)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/judge.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_follows_the_order_of_tiers_and_look_ups(maps in maps(), connection in connection()) {
        // Whatever the last judgement left behind.
        let mut judgement = Judgement {
            source_identity: 77,
            egress: SideVerdict { rule: 77, ..SideVerdict::NOT_JUDGED },
            ingress: SideVerdict { verdict: side_verdict::DENY, ..SideVerdict::NOT_JUDGED },
            ..Judgement::NONE
        };
        let reason = judge(&maps, &connection, &mut judgement);
        prop_assert_eq!((reason, judgement.egress, judgement.ingress), model(&maps, &connection));
    }

    #[test]
    fn a_service_leads_to_one_of_its_backends_and_to_nobody_elses(
        first in prop_oneof![9 => 0u32..4, 1 => any::<u32>()],
        count in prop_oneof![9 => 0u32..6, 1 => any::<u32>()],
        ports in vec(0u16..4, 0..8),
        choice in any::<u32>(),
    ) {
        let key = ServiceKey { address: DESTINATION, port: 80u16.to_be(), protocol: 6, padding: [0; 5] };
        let backend = |port: &u16| Backend { address: SOURCE, port: *port, padding: [0; 3] };
        let maps = Maps {
            services: [(key, ServiceValue { first, count })].into(),
            backends: (0..).zip(ports.iter().map(backend)).collect(),
            ..Maps::default()
        };
        let lead = |address, port: u16, protocol| match resolve(&maps, &address, port.to_be(), protocol, choice) {
            Destination::Plain => None,
            Destination::NoBackend => Some(None),
            Destination::Backend(backend) => Some(Some(*backend)),
        };
        let chosen = (count != 0).then(|| u64::from(first) + u64::from(choice % count));
        let expected = chosen
            .and_then(|index| maps.backends.get(&((index & 0xffff_ffff) as u32)))
            .filter(|backend| backend.port != 0);
        prop_assert_eq!(lead(DESTINATION, 80, 6), Some(expected.copied()));
        prop_assert_eq!(lead(DESTINATION, 81, 6), None);
        prop_assert_eq!(lead(DESTINATION, 80, 17), None);
        prop_assert_eq!(lead(SOURCE, 80, 6), None);
    }
}
