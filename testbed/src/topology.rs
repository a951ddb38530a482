//! Places joined by links. Everything is there in IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::place::{Place, ip};
use crate::testbed::Testbed;

/// What a pod without an agent takes for its gateways ([`connect_routed`]).
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// The interface of a node that leads out.
pub const UPLINK: &str = "uplink0";

/// Two places and one veth pair between them; nothing else on the way.
#[derive(Debug)]
pub struct Direct {
    pub client: Place,
    pub server: Place,
}

impl Direct {
    pub const CLIENT: [IpAddr; 2] = [v4(10, 1, 0, 2), v6(0xfd00, 1, 2)];
    pub const SERVER: [IpAddr; 2] = [v4(10, 1, 0, 3), v6(0xfd00, 1, 3)];
}

/// Makes a [`Direct`] of places `NAME-client` and `NAME-server`.
pub fn direct(testbed: &Testbed, name: &str) -> Result<Direct> {
    let client = testbed.host(&format!("{name}-client"))?;
    let server = testbed.host(&format!("{name}-server"))?;
    pair(&client, "eth0", &server, "eth0")?;
    address(&client, "eth0", &Direct::CLIENT)?;
    address(&server, "eth0", &Direct::SERVER)?;
    Ok(Direct { client, server })
}

/// A node and a host outside behind its uplink, each the other's default route.
#[derive(Debug)]
pub struct Uplink {
    pub node: Place,
    pub outside: Place,
}

impl Uplink {
    /// The node's addresses, at [`UPLINK`].
    pub const NODE: [IpAddr; 2] = [v4(192, 168, 50, 1), v6(0xfd00, 50, 1)];
    /// The outside host's addresses, in the same prefixes.
    pub const OUTSIDE: [IpAddr; 2] = [v4(192, 168, 50, 2), v6(0xfd00, 50, 2)];
    /// More addresses of the outside host, reached by the default route: somewhere in the world.
    pub const WORLD: [IpAddr; 2] = [
        v4(203, 0, 113, 10),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    ];
}

/// Makes an [`Uplink`] of places `NAME` and `NAME-outside`. The node does not forward by this alone.
pub fn node_with_uplink(testbed: &Testbed, name: &str) -> Result<Uplink> {
    let node = testbed.host(name)?;
    let outside = testbed.host(&format!("{name}-outside"))?;
    pair(&node, UPLINK, &outside, "eth0")?;
    address(&node, UPLINK, &Uplink::NODE)?;
    address(&outside, "eth0", &Uplink::OUTSIDE)?;
    for address in Uplink::WORLD {
        outside.ip(&format!("address add {address} dev lo"))?;
    }
    for (from, to, device) in [(&node, Uplink::OUTSIDE, UPLINK), (&outside, Uplink::NODE, "eth0")] {
        for gateway in to {
            from.ip(&format!("route add default via {gateway} dev {device}"))?;
        }
    }
    Ok(Uplink { node, outside })
}

/// Connects a pod to its node by the kernel's routing alone, without an agent: what a dataplane is compared
/// with. The shape is the agent's own: single addresses, and permanent entries in place of ARP.
pub fn connect_routed(node: &Place, pod: &Place, host_interface: &str, addresses: &[IpAddr]) -> Result<()> {
    pair(node, host_interface, pod, "eth0")?;
    pod.ip("link set lo up")?;
    for address in addresses {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        pod.ip(&format!("address add {address} dev eth0 {nodad}"))?;
    }
    let (node_mac, pod_mac) = (node.mac(host_interface)?, pod.mac("eth0")?);
    for gateway in GATEWAYS
        .iter()
        .filter(|gateway| addresses.iter().any(|a| a.is_ipv4() == gateway.is_ipv4()))
    {
        pod.ip(&format!(
            "neigh replace {gateway} lladdr {node_mac} dev eth0 nud permanent"
        ))?;
        pod.ip(&format!("route add {gateway} dev eth0"))?;
        pod.ip(&format!("route add default via {gateway} dev eth0"))?;
    }
    for address in addresses {
        node.ip(&format!("route add {address} dev {host_interface}"))?;
        node.ip(&format!(
            "neigh replace {address} lladdr {pod_mac} dev {host_interface} nud permanent"
        ))?;
    }
    Ok(())
}

/// Makes a place forward between its interfaces.
pub fn forward(place: &Place) -> Result<()> {
    place.sysctl("net/ipv4/ip_forward", "1")?;
    place.sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// Ports enough for connections by the ten thousand a second, and a TCP that does not slow down when idle.
pub fn tune_for_measuring(place: &Place) -> Result<()> {
    place.sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
    place.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    place.sysctl("net/ipv4/tcp_slow_start_after_idle", "0")
}

/// A veth pair, both ends up.
fn pair(a: &Place, a_name: &str, b: &Place, b_name: &str) -> Result<()> {
    let ends = format!(
        "{a_name} netns {} type veth peer name {b_name} netns {}",
        a.netns(),
        b.netns()
    );
    ip(&format!("link add {ends}"))?;
    a.ip(&format!("link set {a_name} up"))?;
    b.ip(&format!("link set {b_name} up"))
}

/// One address a family, in prefixes of 24 and 64 bits.
fn address(place: &Place, interface: &str, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let rest = if address.is_ipv4() { "24" } else { "64 nodad" };
        let (length, flags) = rest.split_once(' ').unwrap_or((rest, ""));
        place.ip(&format!("address add {address}/{length} dev {interface} {flags}"))?;
    }
    Ok(())
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(first: u16, second: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last))
}
