//! The second judge: the datapath built for the host, over the contents of the maps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::policy::{EGRESS, INGRESS, PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::reason::Reason;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;
use weir_agent::contents::Contents;
use weir_datapath::judge::{Connection, Judgement, judge, judge_end};
use weir_datapath::tables::Tables;
use weir_policy::resolved::Flow;

/// The tables as the kernel would find them.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a>(pub &'a Contents);

impl Tables for Host<'_> {
    fn workload(&self, address: &Address) -> Option<&Workload> {
        self.0.workloads.get(address)
    }

    fn address(&self, address: &Address) -> Option<&AddressValue> {
        self.0.addresses.get(address)
    }

    fn cidr(&self, key: &CidrKey) -> Option<u32> {
        longest(&self.0.cidrs, key)
    }

    fn range(&self, key: &CidrKey) -> Option<u32> {
        longest(&self.0.non_masquerade, key)
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyValue> {
        self.0.policy.get(key)
    }

    fn port(&self, key: &PortKey) -> Option<&PortValue> {
        self.0.ports.get(key)
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceValue> {
        self.0.services.get(key)
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.0.backends.get(&index)
    }
}

/// As `BPF_MAP_TYPE_LPM_TRIE` finds it: of all that contain the key, the longest.
fn longest(trie: &BTreeMap<CidrKey, u32>, key: &CidrKey) -> Option<u32> {
    let around = |cidr: &CidrKey| cidr.prefix_len <= key.prefix_len && contains(cidr, Address(key.address));
    let found = trie.iter().filter(|(cidr, _)| around(cidr));
    found
        .max_by_key(|(cidr, _)| cidr.prefix_len)
        .map(|(_, value)| *value)
}

fn contains(cidr: &CidrKey, address: Address) -> bool {
    let bits = |address: Address| u128::from_be_bytes(address.octets());
    let shift = 128 - cidr.prefix_len;
    let prefix = |address| bits(address).checked_shr(shift).unwrap_or(0);
    prefix(Address(cidr.address)) == prefix(address)
}

/// The connection that a flow's first packet opens.
pub fn connection(contents: &Contents, flow: &Flow, source_port: u16) -> Connection {
    let (source, destination) = (Address::from_ip(flow.source), Address::from_ip(flow.destination));
    let pod = |address: &Address| contents.workloads.get(address).copied().unwrap_or_default();
    Connection {
        source,
        destination,
        source_pod: pod(&source),
        destination_pod: pod(&destination),
        source_port: source_port.to_be(),
        destination_port: flow.destination_port.to_be(),
        protocol: flow.protocol,
        padding: [0; 3],
    }
}

/// What [`judge`] says.
pub fn judged(contents: &Contents, flow: &Flow) -> (Reason, Judgement) {
    let mut judgement = Judgement::NONE;
    let reason = judge(
        &Host(contents),
        &connection(contents, flow, 40_000),
        &mut judgement,
    );
    (reason, judgement)
}

/// What each side says, whatever the other one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// Where the source is a pod of this node.
    pub egress: Option<SideVerdict>,
    pub ingress: Option<SideVerdict>,
}

pub fn sides(contents: &Contents, flow: &Flow) -> Sides {
    let host = Host(contents);
    let connection = connection(contents, flow, 40_000);
    let mut judgement = Judgement::NONE;
    let reason = judge(&host, &connection, &mut judgement);
    let exempt = matches!(reason, Reason::LocalNode | Reason::ToItself);
    let mut side = |direction, is_pod: bool| {
        is_pod.then(|| {
            if exempt {
                return EXEMPT;
            }
            judge_end(&host, direction, &connection, &mut judgement);
            if direction == EGRESS {
                judgement.egress
            } else {
                judgement.ingress
            }
        })
    };
    Sides {
        egress: side(EGRESS, connection.is_from_pod()),
        ingress: side(INGRESS, connection.is_to_pod()),
    }
}

/// No policy is asked.
pub const EXEMPT: SideVerdict = SideVerdict {
    verdict: side_verdict::ALLOW,
    dry_run_verdict: side_verdict::ALLOW,
    ..SideVerdict::NOT_JUDGED
};

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}
