//! Connecting pods: the veth pair between a pod's network namespace and the node.
//!
//! The shape is that of every routed pod network. The pod holds its addresses as `/32` and `/128`, and
//! reaches everything through two gateways that exist nowhere but in its own neighbour table
//! (`169.254.1.1` and `fe80::1`), so that it never waits for ARP or neighbour discovery. The node holds one
//! route and one permanent neighbour for each address of the pod.
//!
//! [`plan`] compares what is with what should be and returns the operations between the two; it touches
//! nothing. [`link`] reads the one and carries out the other. Doing it again changes nothing where all is
//! right, and mends what is not.

mod link;
mod netns;
mod observe;
mod plan;
mod sysctl;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) use link::{add_address, address_message, connection, netlink_error};
pub use link::{connect, disconnect, inspect, list, open, prepare};
pub(crate) use observe::{addresses, link_by_name, mac, mtu, neighbours};
pub use plan::{
    End, EndName, GATEWAY_V4, GATEWAY_V6, HOST_MAC, HostLink, Operation, PeerLink, PodEnd, ROUTE_PROTOCOL,
    Refusal, Route, Seen,
};
pub use sysctl::{Family, Sysctl, prepare_node, reserve_ports};

/// A link-layer address, in the order in which it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How one pod shall be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The pod's network namespace, such as `/run/netns/NAME` or `/proc/PID/ns/net`. It must exist.
    pub netns: PathBuf,
    /// Name of the node's end, in the network namespace of the agent: 1 to 15 bytes.
    pub host_ifname: String,
    /// Name of the pod's end, in the pod's namespace: 1 to 15 bytes.
    pub pod_ifname: String,
    /// The pod's addresses, at least one, all of them unicast. The order carries no meaning.
    pub addresses: Vec<IpAddr>,
    /// Of both ends, in bytes without the Ethernet header: 68 to 65535, and at least 1280 with an IPv6
    /// address (RFC 8200, section 5).
    pub mtu: u32,
}

/// A connected pod, as the programs at its interface need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// Index of the node's end, in the agent's namespace.
    pub host_ifindex: u32,
    /// Address of the node's end: what the pod takes for its gateway. Always [`HOST_MAC`].
    pub host_mac: Mac,
    /// Index of the pod's end, in the pod's namespace.
    pub pod_ifindex: u32,
    /// Address of the pod's end.
    pub pod_mac: Mac,
}

/// What [`inspect`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The pair, where both ends are there and belong together.
    pub interface: Option<PodInterface>,
    /// What [`connect`] would do. Empty when all is as it should be.
    pub missing: Vec<Operation>,
}

/// Why a pod could not be connected. Nothing is undone: [`connect`] goes on from where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("network namespace {}: {source}", path.display())]
    Netns { path: PathBuf, source: std::io::Error },
    #[error("network namespace {} is the node's own", path.display())]
    NodeNetns { path: PathBuf },
    #[error("{doing}: {source}")]
    Netlink { doing: String, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Sysctl { path: PathBuf, source: std::io::Error },
    #[error("{name}: the interface vanished while it was being set up")]
    Vanished { name: String },
}
