//! The shape of a cluster: names, addresses, zones. Everything follows from the options.
//!
//! Clusters share no network: each has a bridge in a namespace of its own, so all use the same addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Nodes are spread over these in turn.
const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

/// Where the host parts of addresses begin: the bridge, the control plane, the first node.
const FABRIC: u8 = 1;
const CONTROL_PLANE: u8 = 10;
const NODES: u8 = 21;

/// The API server's port, at the control plane's addresses.
pub const API_PORT: u16 = 6443;

/// What a person chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub name: ClusterName,
    /// 2 to 6.
    pub nodes: u8,
    pub family: Family,
}

/// Up to 20 lower-case letters, digits and dashes, a letter first: it becomes a part of the names of network
/// namespaces and control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// Which addresses nodes, pods and Services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

/// A cluster as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub options: Options,
    pub nodes: Vec<Node>,
}

/// A node as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// In Kubernetes; also the host name.
    pub name: String,
    pub zone: &'static str,
    /// The first is the primary one.
    pub addresses: Vec<IpAddr>,
    /// The network namespace, as `ip netns` knows it.
    pub netns: String,
    /// Of its `eth0`: the same in every life of the node, so that what its neighbours know of it stays true.
    pub mac: String,
}

impl Plan {
    /// # Errors
    /// There are to be fewer than two nodes or more than six.
    pub fn new(options: Options) -> Result<Self> {
        ensure!(
            (2..=6).contains(&options.nodes),
            "a cluster has 2 to 6 nodes, not {}",
            options.nodes
        );
        let nodes = (0..options.nodes)
            .zip(ZONES.iter().cycle())
            .map(|(index, zone)| {
                let name = format!("node{}", index + 1);
                Node {
                    zone,
                    addresses: options.family.hosts(NODES + index),
                    netns: format!("{}-{name}", options.name.prefix()),
                    mac: mac(NODES + index),
                    name,
                }
            })
            .collect();
        Ok(Self { options, nodes })
    }

    /// Begins the names of all that this cluster makes on the machine.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.options.name.prefix()
    }

    /// The namespace of the bridge, which is the nodes' way out.
    #[must_use]
    pub fn fabric_netns(&self) -> String {
        format!("{}-fabric", self.prefix())
    }

    /// The namespace of the control plane, and of kubectl.
    #[must_use]
    pub fn control_plane_netns(&self) -> String {
        format!("{}-cp", self.prefix())
    }

    #[must_use]
    pub fn fabric(&self) -> Vec<IpAddr> {
        self.options.family.hosts(FABRIC)
    }

    #[must_use]
    pub fn control_plane(&self) -> Vec<IpAddr> {
        self.options.family.hosts(CONTROL_PLANE)
    }

    #[must_use]
    pub fn control_plane_mac(&self) -> String {
        mac(CONTROL_PLANE)
    }

    /// The first of the control plane's addresses.
    #[must_use]
    pub fn api_address(&self) -> IpAddr {
        match self.options.family {
            Family::Ipv4 | Family::Dual => v4(CONTROL_PLANE),
            Family::Ipv6 => v6(CONTROL_PLANE),
        }
    }

    /// Where clients find the API server.
    #[must_use]
    pub fn api_url(&self) -> String {
        match self.api_address() {
            IpAddr::V4(address) => format!("https://{address}:{API_PORT}"),
            IpAddr::V6(address) => format!("https://[{address}]:{API_PORT}"),
        }
    }

    /// Addresses outside of the cluster, which has no route back to pods: only what leaves under a node's address is
    /// answered. They are of ranges for documentation (RFC 5737, RFC 3849).
    #[must_use]
    pub fn world(&self) -> Vec<IpAddr> {
        self.options.family.pick(
            Ipv4Addr::new(203, 0, 113, 10).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
        )
    }

    /// Of these the controller manager gives each node a /24 and a /64.
    #[must_use]
    pub fn pod_cidrs(&self) -> Vec<&'static str> {
        self.options.family.pick("10.244.0.0/16", "fd00:10:244::/56")
    }

    #[must_use]
    pub fn service_cidrs(&self) -> Vec<&'static str> {
        self.options.family.pick("10.96.0.0/16", "fd00:10:96::/112")
    }

    /// The addresses of the Service `kubernetes`, which the API server takes from the beginning of each range.
    #[must_use]
    pub fn kubernetes_service(&self) -> Vec<IpAddr> {
        self.service_hosts(1)
    }

    /// The addresses of the Service `kube-dns`.
    #[must_use]
    pub fn dns_service(&self) -> Vec<IpAddr> {
        self.service_hosts(10)
    }

    fn service_hosts(&self, host: u8) -> Vec<IpAddr> {
        self.options.family.pick(
            Ipv4Addr::new(10, 96, 0, host).into(),
            Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, host.into()).into(),
        )
    }
}

impl Family {
    fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::Ipv4 => vec![v4],
            Self::Ipv6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }

    fn hosts(self, host: u8) -> Vec<IpAddr> {
        self.pick(v4(host), v6(host))
    }
}

fn v4(host: u8) -> IpAddr {
    Ipv4Addr::new(172, 31, 0, host).into()
}

fn v6(host: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, host.into()).into()
}

/// Locally administered (IEEE 802, 8.4).
fn mac(host: u8) -> String {
    format!("02:00:ac:1f:00:{host:02x}")
}

/// An address on the wire between nodes, with its prefix's length.
#[must_use]
pub fn with_prefix(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 24 } else { 64 };
    format!("{address}/{length}")
}

impl ClusterName {
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("weir-{}", self.0)
    }
}

impl FromStr for ClusterName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) || name.len() > 20 {
            bail!("{name:?} is no name of a cluster: up to 20 of a-z, 0-9 and -, a letter first");
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u8, family: Family) -> Result<Plan> {
        let name = "local".parse().expect("a name");
        Plan::new(Options { name, nodes, family })
    }

    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn nodes_have_addresses_of_both_families_and_a_zone_in_turn() {
        let plan = plan(4, Family::Dual).expect("four nodes");
        let nodes: Vec<_> = plan
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "{} {} {} {} {:?}",
                    node.name, node.netns, node.mac, node.zone, node.addresses
                )
            })
            .collect();
        assert_eq!(
            nodes,
            [
                "node1 weir-local-node1 02:00:ac:1f:00:15 zone-a [172.31.0.21, fd00:172:31::15]",
                "node2 weir-local-node2 02:00:ac:1f:00:16 zone-b [172.31.0.22, fd00:172:31::16]",
                "node3 weir-local-node3 02:00:ac:1f:00:17 zone-c [172.31.0.23, fd00:172:31::17]",
                "node4 weir-local-node4 02:00:ac:1f:00:18 zone-a [172.31.0.24, fd00:172:31::18]",
            ]
        );
    }

    #[test]
    fn one_family_alone_is_alone_everywhere() {
        let plan = plan(2, Family::Ipv6).expect("two nodes");
        assert_eq!(texts(&plan.nodes[0].addresses), ["fd00:172:31::15"]);
        assert_eq!(texts(&plan.control_plane()), ["fd00:172:31::a"]);
        assert_eq!(plan.api_url(), "https://[fd00:172:31::a]:6443");
        assert_eq!(plan.pod_cidrs(), ["fd00:10:244::/56"]);
        assert_eq!(plan.service_cidrs(), ["fd00:10:96::/112"]);
        assert_eq!(texts(&plan.dns_service()), ["fd00:10:96::a"]);
        assert_eq!(texts(&plan.kubernetes_service()), ["fd00:10:96::1"]);
        assert_eq!(with_prefix(plan.api_address()), "fd00:172:31::a/64");
    }

    #[test]
    fn odd_clusters_are_refused() {
        for nodes in [0, 1, 7] {
            let error = plan(nodes, Family::Ipv4).expect_err("too few or too many");
            assert_eq!(
                error.to_string(),
                format!("a cluster has 2 to 6 nodes, not {nodes}")
            );
        }
        for name in ["", "1st", "Upper", "a_b", "a/b", "abcdefghijklmnopqrstu"] {
            assert!(name.parse::<ClusterName>().is_err(), "{name}");
        }
    }
}
