//! The flow tables: one look-up decides an established packet.

use crate::address::Address;

/// Key of `flows4`. The end with the smaller (address, port) is `low`, so both directions of a flow meet one entry.
/// For ICMP echo the identifier stands in both ports; protocols without ports have 0.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey4 {
    /// Network byte order.
    pub low: u32,
    pub high: u32,
    /// Network byte order.
    pub low_port: u16,
    pub high_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// Key of `flows6`; see [`FlowKey4`].
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey6 {
    pub low: Address,
    pub high: Address,
    pub low_port: u16,
    pub high_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// Value of both flow tables: everything that must be done with a packet of the flow.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowValue {
    /// [`Control::revision`](crate::config::Control) under which it was decided.
    pub revision: u32,
    /// When the last packet came, in units of 2^30 ns (1.07 s) of the boot clock.
    pub seen: u32,
    /// Bits of [`flow_flags`].
    pub flags: u32,
    /// Network byte order; with `rewrite_address`.
    pub rewrite_port: u16,
    pub padding: u16,
    /// How to reach the low end, and then the high one.
    pub hops: [Hop; 2],
    /// Rules that allowed it: at the source's egress and at the destination's ingress.
    pub egress_rule: u32,
    pub ingress_rule: u32,
    /// What replaces the destination (from the client) or the source (to the client) of a translated flow.
    pub rewrite_address: Address,
}

/// How a packet reaches one end of a flow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hop {
    /// Host side of the local pod's veth; [`TO_STACK`] for an end that the node's network stack reaches; with
    /// [`BY_NEIGHBOUR`] set, the interface on which `bpf_redirect_neigh` reaches it.
    pub ifindex: u32,
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
}

pub const TO_STACK: u32 = 0;
pub const BY_NEIGHBOUR: u32 = 1 << 31;

pub mod flow_flags {
    /// The connection was opened by the high end.
    pub const OPENED_BY_HIGH: u32 = 1 << 0;
    /// The end that did not open it has sent something.
    pub const ANSWERED: u32 = 1 << 1;
    /// TCP: the end that opened it has sent FIN.
    pub const OPENER_FINISHED: u32 = 1 << 2;
    /// TCP: the other end has sent FIN.
    pub const PEER_FINISHED: u32 = 1 << 3;
    /// TCP: over, by RST or by FIN from both ends.
    pub const CLOSED: u32 = 1 << 4;
    /// Packets from the end that opened it: the destination is replaced by `rewrite_address` and `rewrite_port`.
    pub const REWRITE_DESTINATION: u32 = 1 << 5;
    /// Packets to the end that opened it: the source is replaced by `rewrite_address` and `rewrite_port`.
    pub const REWRITE_SOURCE: u32 = 1 << 6;
    /// Either.
    pub const REWRITE: u32 = REWRITE_DESTINATION | REWRITE_SOURCE;
    /// What the two entries of a translated connection have in common.
    pub const SHARED: u32 = ANSWERED | OPENER_FINISHED | PEER_FINISHED | CLOSED;
}

/// Key of the `fragments` LRU hash: what fragments of one packet have in common (RFC 791; RFC 8200, section 4.5).
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    /// IPv4: 16 bits. Network byte order.
    pub identification: u32,
    /// 0 in IPv6: there only the first fragment need say what follows all headers.
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// Value of the `fragments` LRU hash: what only the first fragment says.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentValue {
    /// Network byte order.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}
