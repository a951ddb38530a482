//! Packets for tests, built by name: `tcp(a, b, 40_000, 80, SYN).payload(b"hello").bytes()`.
//!
//! Every packet is one that a real sender could have sent: lengths and checksums are right, options and extension
//! headers are well-formed padding. Tests that want a wrong one change its bytes. Ports, identifiers and
//! identifications are numbers in the machine's own byte order here.

mod checksum;
mod full;
mod header;
mod samples;

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeFrom;

use crate::packet::protocol;
pub use full::FULL;
pub use samples::samples;

/// The Ethernet addresses of a frame whose sender and receiver do not matter.
pub const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
pub const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];

pub mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
}

/// An IP packet to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Transport header, its checksum 0. Empty where the protocol has none that is known.
    header: Vec<u8>,
    payload: Vec<u8>,
    hop_limit: u8,
    /// IPv4, in words of four bytes.
    options: u8,
    /// IPv6, in the order in which they stand.
    extensions: Vec<Extension>,
    fragment: Option<Fragment>,
}

/// An IPv6 extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// The number is what the length field says: units of eight bytes behind the first eight.
    HopByHop(u8),
    Routing(u8),
    Destination(u8),
    /// The length field of an authentication header counts units of four bytes, and the first eight bytes not. At
    /// least 1, since a header of eight bytes would have no sequence number.
    Authentication(u8),
    /// Of an atomic fragment, with this identification. See [`Builder::fragment`] for others.
    Atomic(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    identification: u32,
    start: usize,
    end: usize,
    /// How many of the extension headers stand before the fragment header.
    after: usize,
}

/// `flags` as in [`crate::packet::tcp_flags`].
pub fn tcp(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    flags: u8,
) -> Builder {
    let mut header = ports(source_port, destination_port);
    header.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
    header.extend_from_slice(&[5 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    Builder::new(source, destination, protocol::TCP, header)
}

pub fn udp(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Builder {
    let mut header = ports(source_port, destination_port);
    header.extend_from_slice(&[0; 4]);
    Builder::new(source, destination, protocol::UDP, header)
}

/// A DATA chunk (RFC 9260, section 3.3.1), to which the payload belongs.
pub fn sctp(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Builder {
    let mut header = ports(source_port, destination_port);
    header.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 0]);
    header.extend_from_slice(&[0, 3, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    Builder::new(source, destination, protocol::SCTP, header)
}

/// An echo request of the addresses' family.
pub fn echo(source: IpAddr, destination: IpAddr, identifier: u16) -> Builder {
    icmp(
        source,
        destination,
        if source.is_ipv4() { 8 } else { 128 },
        0,
        echo_body(identifier),
    )
}

/// An echo reply of the addresses' family.
pub fn echo_reply(source: IpAddr, destination: IpAddr, identifier: u16) -> Builder {
    icmp(
        source,
        destination,
        if source.is_ipv4() { 0 } else { 129 },
        0,
        echo_body(identifier),
    )
}

/// An ICMP or ICMPv6 message, as the addresses' family has it. `body` is what stands in bytes 4 to 7.
pub fn icmp(source: IpAddr, destination: IpAddr, icmp_type: u8, code: u8, body: [u8; 4]) -> Builder {
    let mut header = vec![icmp_type, code, 0, 0];
    header.extend_from_slice(&body);
    let protocol = if source.is_ipv4() {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    };
    Builder::new(source, destination, protocol, header)
}

/// An ICMP or ICMPv6 error that quotes the IP packet of the frame `about`, as much of it as the RFCs allow.
pub fn icmp_error(source: IpAddr, destination: IpAddr, icmp_type: u8, code: u8, about: &[u8]) -> Builder {
    let quote = about.get(header::ETHERNET..).unwrap_or_default();
    // RFC 1812, section 4.3.2.3: 576 bytes in all. RFC 4443, section 2.4: 1280 bytes.
    let most = if source.is_ipv4() {
        576 - 20 - 8
    } else {
        1280 - 40 - 8
    };
    icmp(source, destination, icmp_type, code, [0; 4]).payload(&quote[..quote.len().min(most)])
}

/// A neighbour solicitation (135) or another of the messages 133 to 137, with hop limit 255.
pub fn neighbour_discovery(source: IpAddr, destination: IpAddr, icmp_type: u8) -> Builder {
    icmp(source, destination, icmp_type, 0, [0; 4])
        .payload(&header::octets(destination))
        .hop_limit(255)
}

/// A packet of a protocol that nothing is known of.
pub fn other(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Builder {
    Builder::new(source, destination, protocol, Vec::new()).payload(payload)
}

/// A frame that asks for the Ethernet address of `target` (RFC 826).
pub fn arp(sender: core::net::Ipv4Addr, target: core::net::Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
    payload.extend_from_slice(&SOURCE_MAC);
    payload.extend_from_slice(&sender.octets());
    payload.extend_from_slice(&[0; 6]);
    payload.extend_from_slice(&target.octets());
    ethernet(ether_type::ARP, &payload)
}

/// A frame.
pub fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(header::ETHERNET + payload.len());
    frame.extend_from_slice(&DESTINATION_MAC);
    frame.extend_from_slice(&SOURCE_MAC);
    frame.extend_from_slice(&ether_type.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn echo_body(identifier: u16) -> [u8; 4] {
    let [high, low] = identifier.to_be_bytes();
    [high, low, 0, 1]
}

impl Builder {
    fn new(source: IpAddr, destination: IpAddr, protocol: u8, header: Vec<u8>) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "{source} and {destination} are of two families"
        );
        Self {
            source,
            destination,
            protocol,
            header,
            payload: Vec::new(),
            hop_limit: 64,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
        }
    }

    /// What follows the transport header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Time to live, in IPv4. 64 unless set.
    #[must_use]
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// IPv4 options: `words` of four bytes, 0 to 10.
    #[must_use]
    pub fn options(mut self, words: u8) -> Self {
        assert!(
            words <= 10 && self.source.is_ipv4(),
            "{words} words of options in a packet from {}",
            self.source
        );
        self.options = words;
        self
    }

    /// One more IPv6 extension header, behind those that are there.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        assert!(
            self.source.is_ipv6(),
            "an extension header in a packet from {}",
            self.source
        );
        self.extensions.push(extension);
        self
    }

    /// Only the part of the packet that begins at the byte `part.start`, and is the last. Bytes are counted from
    /// where the IP header ends; in IPv6, from behind the extension headers that have been added so far, and those
    /// that are added later are part of what is split.
    #[must_use]
    pub fn last_fragment(self, identification: u32, part: RangeFrom<usize>) -> Self {
        self.part(identification, part.start, usize::MAX)
    }

    /// As [`last_fragment`](Self::last_fragment), a part that is not the last.
    #[must_use]
    pub fn fragment(self, identification: u32, part: core::ops::Range<usize>) -> Self {
        assert_eq!(part.len() % 8, 0, "only the last fragment may end anywhere");
        self.part(identification, part.start, part.end)
    }

    fn part(mut self, identification: u32, start: usize, end: usize) -> Self {
        assert_eq!(start % 8, 0, "a fragment begins at a multiple of eight bytes");
        self.fragment = Some(Fragment {
            identification,
            start,
            end,
            after: self.extensions.len(),
        });
        self
    }

    /// The frame.
    ///
    /// # Panics
    ///
    /// Where a fragment has a range that the packet does not have, or the packet is too long for its length field.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet(ether_type::IPV4, &header::v4(self, source, destination))
            }
            _ => ethernet(ether_type::IPV6, &header::v6(self)),
        }
    }
}
