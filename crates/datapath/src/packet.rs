//! What the decision needs to know of a packet.

use weir_abi::address::Address;

/// Ethernet header length, in bytes: where the IP header starts.
pub const ETHERNET: u32 = 14;

pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

pub mod tcp_flags {
    pub const FIN: u8 = 1 << 0;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const ACK: u8 = 1 << 4;
}

/// A parsed packet. Lives in a per-CPU map in the kernel, since the stack has 512 bytes; a parser writes every field.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// Of the outer header.
    pub source: Address,
    pub destination: Address,
    /// Network byte order. ICMP and ICMPv6 echo and echo reply: the identifier, in both. Other ICMP, and protocols
    /// without ports: 0. In a later fragment: 0, until the fragment table has been asked.
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number behind all extension headers. In a later fragment of IPv6: the number in its fragment
    /// header, which is that of an extension header if one was split along with the rest.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// One of [`shape`].
    pub shape: u8,
    /// TCP flags; the type of ICMP (in IPv4) and ICMPv6 (in IPv6). 0 otherwise.
    pub detail: u8,
    /// Offset of the transport header from the start of the Ethernet header; in a later fragment, of its part of
    /// what was split.
    pub transport: u16,
    /// Offset of the quoted packet's IP header, in an ICMP error.
    pub quoted: u16,
    /// Offset of the quoted packet's transport header, in an ICMP error.
    pub quoted_transport: u16,
    pub padding: u16,
    /// Network byte order, of a fragment; 0 of what is whole.
    pub identification: u32,
    pub padding2: u32,
    /// The packet that an ICMP error quotes, as its own sender wrote it: one that the receiver of the error sent. All
    /// is as above; where a later fragment is quoted, the ports are 0.
    pub quoted_source: Address,
    pub quoted_destination: Address,
    pub quoted_source_port: u16,
    pub quoted_destination_port: u16,
    pub quoted_protocol: u8,
    pub padding3: [u8; 3],
}

pub mod shape {
    /// A whole packet, or an atomic fragment (RFC 6946).
    pub const WHOLE: u8 = 0;
    /// The first fragment: it carries the transport header.
    pub const FIRST_FRAGMENT: u8 = 1;
    /// Any other fragment.
    pub const LATER_FRAGMENT: u8 = 2;
    /// An ICMP error about the quoted packet: types 3, 4, 11 and 12 (RFC 792) in IPv4, 1 to 4 (RFC 4443) in IPv6. A
    /// fragment of one is a fragment.
    pub const ICMP_ERROR: u8 = 3;
    /// ICMPv6 neighbour discovery (types 133 to 137, RFC 4861), hop limit 255. With another it is malformed, and a
    /// fragment of it is a fragment (RFC 6980).
    pub const NEIGHBOUR_DISCOVERY: u8 = 4;
    /// ARP. No other field is meaningful.
    pub const ARP: u8 = 5;
}
