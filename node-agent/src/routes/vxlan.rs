//! A tunnel between nodes: one VXLAN interface, and for each other node its place in it.
//!
//! Everything that the kernel must know of another node follows from the node's name, addresses and pod CIDRs, so that
//! nothing is learned and nothing is asked: the node's link-layer address within the tunnel is a digest of its name, its
//! pods are behind the first address of their CIDR, and the tunnel's table says to which node packets for that
//! link-layer address go. What comes out of the tunnel meets the programs as what comes from an uplink does.
//!
//! The interface itself has the first address of each of this node's pod CIDRs, by which the node itself speaks to
//! other nodes' pods: their answers come back through the tunnel. No pod may have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeNetwork;
use crate::numbers::digest;
use crate::workloads::Mac;

/// The interface's name.
pub const INTERFACE: &str = "weir_vxlan";

/// Of one cluster, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanSettings {
    /// The VXLAN network identifier: 1 to 16,777,215.
    pub vni: u32,
    /// UDP, host byte order.
    pub port: u16,
}

/// As Linux itself and flannel have them; IANA's own port, 4789, may be the fabric's.
impl Default for VxlanSettings {
    fn default() -> Self {
        Self { vni: 87, port: 8472 }
    }
}

/// The interface as it is, or as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub vni: u32,
    pub port: u16,
    /// This node's end.
    pub local: IpAddr,
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
}

/// One thing that the kernel must know. In this order each finds what it needs, and in the reverse order they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// An address of this node's own.
    Address { address: IpAddr },
    /// Frames for the link-layer address go to the node.
    Forward { mac: Mac, node: IpAddr },
    /// The gateway has the link-layer address.
    Neighbour { gateway: IpAddr, mac: Mac },
    /// Pods are behind the gateway, the first address of their CIDR.
    Route { pods: IpNet },
}

/// Pods of another node that the tunnel does not lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("no tunnel to {pod_cidr}, pods of node {node}: {reason}")]
pub struct Unreached {
    pub node: String,
    pub pod_cidr: IpNet,
    pub reason: UnreachedReason,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnreachedReason {
    /// The node has no address of the family in which this node's end of the tunnel is.
    OtherFamily,
    /// A pod CIDR of this node, or of a node that comes before by name, overlaps.
    Overlaps,
}

/// Everything that should be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub tunnel: Tunnel,
    pub entries: BTreeSet<Entry>,
    pub unreached: BTreeSet<Unreached>,
}

/// What `name` is to have, a node with `own` addresses whose uplink takes packets of `mtu` bytes. `None` where it has no
/// address.
#[must_use]
pub fn wanted(
    name: &str,
    own: &NodeNetwork,
    others: &BTreeMap<String, NodeNetwork>,
    settings: VxlanSettings,
    mtu: u32,
) -> Option<Wanted> {
    // IPv4 where there is one, since it costs less; on every node the same.
    let local = *own.addresses.iter().min()?;
    let mut wanted = Wanted {
        tunnel: Tunnel {
            vni: settings.vni,
            port: settings.port,
            local,
            mac: mac_of(name),
            mtu: mtu.saturating_sub(overhead(local)),
        },
        entries: own
            .pod_cidrs
            .iter()
            .map(|cidr| Entry::Address {
                address: cidr.network(),
            })
            .collect(),
        unreached: BTreeSet::new(),
    };
    let mut taken: Vec<IpNet> = own.pod_cidrs.iter().copied().collect();
    for (name, node) in others {
        let end = node
            .addresses
            .iter()
            .copied()
            .find(|ip| ip.is_ipv4() == local.is_ipv4());
        for cidr in &node.pod_cidrs {
            let pods = cidr.trunc();
            let overlaps = taken
                .iter()
                .any(|other| other.contains(&pods) || pods.contains(other));
            match end.ok_or(UnreachedReason::OtherFamily) {
                Ok(end) if !overlaps => wanted.entries.extend(entries(name, end, pods)),
                reason => {
                    wanted.unreached.insert(Unreached {
                        node: name.clone(),
                        pod_cidr: pods,
                        reason: reason.err().unwrap_or(UnreachedReason::Overlaps),
                    });
                }
            }
            taken.push(pods);
        }
    }
    Some(wanted)
}

fn entries(name: &str, node: IpAddr, pods: IpNet) -> [Entry; 3] {
    let (mac, gateway) = (mac_of(name), pods.network());
    [
        Entry::Forward { mac, node },
        Entry::Neighbour { gateway, mac },
        Entry::Route { pods },
    ]
}

/// Bytes that the tunnel takes of every packet: Ethernet (14), VXLAN (8), UDP (8), and IP (20 or 40).
#[must_use]
pub const fn overhead(underlay: IpAddr) -> u32 {
    match underlay {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// Locally administered, unicast. In one of some 90,000 clusters of 5,000 nodes, two have
/// the same one.
fn mac_of(name: &str) -> Mac {
    let [high, _] = digest(["vxlan", name]);
    let [.., a, b, c, d, e] = high.to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

impl fmt::Display for UnreachedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherFamily => "the node has no address of the tunnel's family",
            Self::Overlaps => "another node's pod CIDR overlaps",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &[&str], pod_cidrs: &[&str]) -> NodeNetwork {
        NodeNetwork {
            addresses: addresses
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
            pod_cidrs: pod_cidrs
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_other_node_has_its_place() {
        let own = node(&["192.0.2.1", "2001:db8::1"], &["10.0.1.0/24", "fd00:1::/64"]);
        let others = BTreeMap::from([
            (
                "b".to_owned(),
                node(&["192.0.2.2"], &["10.0.2.0/24", "fd00:2::/64"]),
            ),
            ("c".to_owned(), node(&["2001:db8::3"], &["10.0.3.0/24"])),
            ("d".to_owned(), node(&["192.0.2.4"], &["10.0.1.128/25"])),
        ]);
        let wanted = wanted("a", &own, &others, VxlanSettings::default(), 1_500).expect("an address");
        let b = mac_of("b");
        let unreached = |node: &str, cidr: &str, reason| Unreached {
            node: node.to_owned(),
            pod_cidr: cidr.parse().expect("a network"),
            reason,
        };
        assert_eq!(
            wanted,
            Wanted {
                tunnel: Tunnel {
                    vni: 87,
                    port: 8472,
                    local: ip("192.0.2.1"),
                    mac: mac_of("a"),
                    mtu: 1_450,
                },
                entries: [
                    Entry::Address {
                        address: ip("10.0.1.0")
                    },
                    Entry::Address {
                        address: ip("fd00:1::")
                    },
                    Entry::Forward {
                        mac: b,
                        node: ip("192.0.2.2")
                    },
                    Entry::Neighbour {
                        gateway: ip("10.0.2.0"),
                        mac: b
                    },
                    Entry::Neighbour {
                        gateway: ip("fd00:2::"),
                        mac: b
                    },
                    Entry::Route {
                        pods: "10.0.2.0/24".parse().expect("a network")
                    },
                    Entry::Route {
                        pods: "fd00:2::/64".parse().expect("a network")
                    },
                ]
                .into(),
                unreached: [
                    unreached("c", "10.0.3.0/24", UnreachedReason::OtherFamily),
                    unreached("d", "10.0.1.128/25", UnreachedReason::Overlaps),
                ]
                .into(),
            }
        );
        assert_ne!(mac_of("a"), b);
        assert_eq!(b.0[0] & 3, 2, "unicast, locally administered");
    }

    #[test]
    fn an_ipv6_underlay_costs_more() {
        let own = node(&["2001:db8::1"], &["10.0.1.0/24"]);
        let wanted =
            wanted("a", &own, &BTreeMap::new(), VxlanSettings::default(), 1_500).expect("an address");
        assert_eq!(
            (wanted.tunnel.local, wanted.tunnel.mtu),
            (ip("2001:db8::1"), 1_430)
        );
        assert_eq!(
            super::wanted(
                "a",
                &NodeNetwork::default(),
                &BTreeMap::new(),
                VxlanSettings::default(),
                1_500
            ),
            None
        );
    }
}
