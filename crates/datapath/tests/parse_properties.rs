//! The parser against bytes that nobody thought of, and the builder against somebody else's parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use weir_abi::address::Address;
use weir_abi::reason::Reason;
use weir_datapath::packet::{Packet, protocol, shape};
use weir_datapath::parse::parse;
use weir_datapath::testing::{
    Builder, Extension, echo, ethernet, icmp_error, other, samples, sctp, tcp, udp,
};

fn parsed(frame: &[u8]) -> Result<Packet, Reason> {
    let mut packet = Packet::default();
    parse(frame, &mut packet).map(|()| packet)
}

/// A packet, and what it must parse to.
fn packets() -> impl Strategy<Value = (Builder, Packet)> {
    let v4 = (any::<u32>(), any::<u32>()).prop_map(|(a, b)| {
        (
            IpAddr::V4(Ipv4Addr::from_bits(a)),
            IpAddr::V4(Ipv4Addr::from_bits(b)),
        )
    });
    let v6 = (any::<u128>(), any::<u128>()).prop_map(|(a, b)| {
        (
            IpAddr::V6(Ipv6Addr::from_bits(a)),
            IpAddr::V6(Ipv6Addr::from_bits(b)),
        )
    });
    let payload = prop::collection::vec(any::<u8>(), 0..64);
    (
        prop_oneof![v4, v6],
        transports(),
        payload,
        any::<u8>(),
        0..=10_u8,
        extensions(),
    )
        .prop_map(|((a, b), transport, payload, hop_limit, options, extensions)| {
            let (builder, expected) = transport.between(a, b);
            let builder = builder.payload(&payload).hop_limit(hop_limit);
            let (builder, length) = if a.is_ipv4() {
                (builder.options(options), 4 * u16::from(options))
            } else {
                let length = extensions.iter().map(length).sum();
                (extensions.into_iter().fold(builder, Builder::extension), length)
            };
            (
                builder,
                Packet {
                    transport: expected.transport + length,
                    ..expected
                },
            )
        })
}

#[derive(Debug, Clone)]
enum Transport {
    Tcp(u16, u16, u8),
    Udp(u16, u16),
    Sctp(u16, u16),
    Echo(u16),
    /// A protocol number without a header that the parser knows.
    Other(u8),
}

fn transports() -> impl Strategy<Value = Transport> {
    prop_oneof![
        any::<(u16, u16, u8)>().prop_map(|(s, d, flags)| Transport::Tcp(s, d, flags)),
        any::<(u16, u16)>().prop_map(|(s, d)| Transport::Udp(s, d)),
        any::<(u16, u16)>().prop_map(|(s, d)| Transport::Sctp(s, d)),
        any::<u16>().prop_map(Transport::Echo),
        any::<u8>()
            .prop_filter("a header that the parser knows", |protocol| {
                !matches!(protocol, 0 | 1 | 6 | 17 | 43 | 44 | 51 | 58 | 60 | 132)
            })
            .prop_map(Transport::Other),
    ]
}

impl Transport {
    fn between(&self, a: IpAddr, b: IpAddr) -> (Builder, Packet) {
        let (icmp, icmp_type) = if a.is_ipv4() {
            (protocol::ICMP, 8)
        } else {
            (protocol::ICMPV6, 128)
        };
        let (builder, protocol, source_port, destination_port, detail) = match *self {
            Self::Tcp(s, d, flags) => (tcp(a, b, s, d, flags), protocol::TCP, s, d, flags),
            Self::Udp(s, d) => (udp(a, b, s, d), protocol::UDP, s, d, 0),
            Self::Sctp(s, d) => (sctp(a, b, s, d), protocol::SCTP, s, d, 0),
            Self::Echo(identifier) => (echo(a, b, identifier), icmp, identifier, identifier, icmp_type),
            Self::Other(protocol) => (other(a, b, protocol, &[]), protocol, 0, 0, 0),
        };
        let expected = Packet {
            source: Address::from_ip(a),
            destination: Address::from_ip(b),
            source_port: source_port.to_be(),
            destination_port: destination_port.to_be(),
            protocol,
            family: if a.is_ipv4() { 4 } else { 6 },
            detail,
            transport: if a.is_ipv4() { 34 } else { 54 },
            ..Packet::default()
        };
        (builder, expected)
    }
}

/// In any order, except that hop-by-hop options come first (RFC 8200, section 4.1) and an atomic fragment comes once.
fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let extension = prop_oneof![
        (0..8_u8).prop_map(Extension::Routing),
        (0..8_u8).prop_map(Extension::Destination),
        (1..8_u8).prop_map(Extension::Authentication),
    ];
    let atomic = prop::option::of((any::<prop::sample::Index>(), any::<u32>()));
    let first = prop::option::of((0..8_u8).prop_map(Extension::HopByHop));
    let others = prop::collection::vec(extension, 0..=4);
    (first, others, atomic).prop_map(|(first, mut extensions, atomic)| {
        if let Some((at, identification)) = atomic {
            extensions.insert(at.index(extensions.len() + 1), Extension::Atomic(identification));
        }
        first.into_iter().chain(extensions).collect()
    })
}

fn length(extension: &Extension) -> u16 {
    match *extension {
        Extension::HopByHop(units) | Extension::Routing(units) | Extension::Destination(units) => {
            8 + 8 * u16::from(units)
        }
        Extension::Authentication(words) => 8 + 4 * u16::from(words),
        Extension::Atomic(_) => 8,
    }
}

/// Cut anywhere, a frame is truncated until the parser has seen all that it needs, and says the same from there on.
fn assert_survives_truncation(name: &str, frame: &[u8]) {
    let whole = parsed(frame);
    let (needed, may_do) = needed(&whole);
    for length in 0..frame.len() {
        let cut = parsed(&frame[..length]);
        if length < needed {
            assert_eq!(cut, Err(Reason::Truncated), "{name} cut to {length} bytes");
        } else if length < may_do {
            assert!(
                cut == whole || cut == Err(Reason::Truncated),
                "{name} cut to {length} bytes: {cut:?}"
            );
        } else {
            assert_eq!(cut, whole, "{name} cut to {length} bytes");
        }
    }
}

/// Without how many bytes of its frame a packet is surely truncated, and with how many it surely is not.
fn needed(parsed: &Result<Packet, Reason>) -> (usize, usize) {
    const IPV4: usize = 34;
    let Ok(packet) = parsed else {
        // Every frame must have as much as an IPv4 header.
        return (IPV4, IPV4);
    };
    if packet.shape == shape::ARP {
        return (IPV4, IPV4);
    }
    let (headers, transport) = match packet.shape {
        shape::ICMP_ERROR => {
            let length = match packet.quoted_protocol {
                // Later fragments have none; the samples and the built packets do not have 0 otherwise.
                _ if packet.quoted_source_port == 0 => 0,
                protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6 => 8,
                _ => 0,
            };
            (usize::from(packet.quoted_transport), length)
        }
        shape::LATER_FRAGMENT => (usize::from(packet.transport), 0),
        _ => {
            let length = match packet.protocol {
                protocol::TCP => 20,
                protocol::UDP | protocol::SCTP => 8,
                protocol::ICMP if packet.family == 4 => 8,
                protocol::ICMPV6 if packet.family == 6 => 8,
                _ => 0,
            };
            (usize::from(packet.transport), length)
        }
    };
    match (packet.family, transport) {
        // Nobody asks for the options where nothing behind them is read; nor for an ICMP header whose ports are 0.
        (4, 0) => (usize::from(packet.quoted.max(14)) + 20, headers + 8),
        (6, 0) => (headers, headers + 8),
        _ => (headers + transport, headers + transport),
    }
}

#[test]
fn every_sample_cut_anywhere() {
    for (name, frame) in samples() {
        assert_survives_truncation(&name, &frame);
    }
}

#[test]
fn samples_are_what_they_are_called() {
    for (name, frame) in samples() {
        let expected = match name.as_str() {
            "vlan" => Err(Reason::UnsupportedEtherType),
            "arp" => Ok(shape::ARP),
            _ if name.starts_with("error-") => Ok(shape::ICMP_ERROR),
            _ if name.starts_with("neighbour-discovery-") => Ok(shape::NEIGHBOUR_DISCOVERY),
            _ if name.contains("first-fragment") => Ok(shape::FIRST_FRAGMENT),
            _ if name.contains("later-fragment") || name.contains("last-fragment") => {
                Ok(shape::LATER_FRAGMENT)
            }
            _ => Ok(shape::WHOLE),
        };
        assert_eq!(parsed(&frame).map(|packet| packet.shape), expected, "{name}");
    }
}

#[test]
fn samples_are_sound() {
    for (name, frame) in samples() {
        if let Ok(packet) = parsed(&frame) {
            assert_sound(&name, &frame, &packet);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parsed(&frame);
    }

    #[test]
    fn random_headers_never_panic(
        ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd]),
        first in prop::sample::select(vec![0x45_u8, 0x4f, 0x60]),
        mut payload in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        payload[0] = first;
        let _ = parsed(&ethernet(ether_type, &payload));
    }

    /// Every parse says the same, whatever the packet before it has left.
    #[test]
    fn a_changed_sample_depends_on_its_own_bytes(
        sample in any::<prop::sample::Index>(),
        before in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let samples = samples();
        let (_, mut frame) = samples[sample.index(samples.len())].clone();
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        let mut packet = Packet::default();
        let _ = parse(samples[before.index(samples.len())].1.as_slice(), &mut packet);
        let after = parse(frame.as_slice(), &mut packet).map(|()| packet);
        prop_assert_eq!(after, parsed(&frame));
    }

    #[test]
    fn built_packets_parse_to_what_they_were_built_from((builder, expected) in packets()) {
        prop_assert_eq!(parsed(&builder.bytes()), Ok(expected));
    }

    #[test]
    fn built_packets_cut_anywhere((builder, _) in packets()) {
        assert_survives_truncation("built", &builder.bytes());
    }

    /// Lengths, checksums and header chains are right by etherparse, too.
    #[test]
    fn built_packets_are_sound((builder, expected) in packets()) {
        // It expects headers behind these, which random bytes are not: IGMP, mobility, HIP, Shim6, experiments.
        prop_assume!(!matches!(expected.protocol, 2 | 135 | 139 | 140 | 253 | 254));
        assert_sound("built", &builder.bytes(), &expected);
    }

    #[test]
    fn errors_quote_what_was_built((builder, about) in packets()) {
        let (a, b) = (about.destination.to_ip(), about.source.to_ip());
        let (icmp, icmp_type, quoted) =
            if about.family == 4 { (protocol::ICMP, 3, 42) } else { (protocol::ICMPV6, 1, 62) };
        let error = icmp_error(a, b, icmp_type, 0, &builder.bytes());
        prop_assert_eq!(parsed(&error.bytes()), Ok(Packet {
            source: about.destination,
            destination: about.source,
            protocol: icmp,
            family: about.family,
            shape: shape::ICMP_ERROR,
            detail: icmp_type,
            transport: quoted - 8,
            quoted,
            quoted_transport: quoted + about.transport - 14,
            quoted_source: about.source,
            quoted_destination: about.destination,
            quoted_source_port: about.source_port,
            quoted_destination_port: about.destination_port,
            quoted_protocol: about.protocol,
            ..Packet::default()
        }));
    }
}

/// What etherparse reads in a frame is what `expected` says, and its lengths and checksums are right.
fn assert_sound(name: &str, frame: &[u8], expected: &Packet) {
    // etherparse goes on into a later fragment where the header's number is that of another header.
    if expected.shape == shape::LATER_FRAGMENT && is_extension(expected.protocol) {
        return;
    }
    let sliced = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (payload, addresses) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(
                header.header_checksum,
                header.calc_header_checksum(),
                "{name}: IPv4 checksum"
            );
            assert_eq!(
                usize::from(header.total_len) + 14,
                frame.len(),
                "{name}: total length"
            );
            (
                ip.payload(),
                [header.source.to_vec(), header.destination.to_vec()].concat(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(
                usize::from(header.payload_length) + 54,
                frame.len(),
                "{name}: payload length"
            );
            (
                ip.payload(),
                [header.source.to_vec(), header.destination.to_vec()].concat(),
            )
        }
        _ => {
            assert_eq!(expected.shape, shape::ARP, "{name}");
            return;
        }
    };
    let segment = payload.payload;
    let offset = segment.as_ptr() as usize - frame.as_ptr() as usize;
    // etherparse does not look behind the fragment header of what is not whole.
    if matches!(expected.shape, shape::FIRST_FRAGMENT | shape::LATER_FRAGMENT) {
        assert!(
            payload.fragmented && offset <= usize::from(expected.transport),
            "{name}: fragment"
        );
        return;
    }
    let transport = usize::from(expected.transport);
    assert_eq!(
        (payload.ip_number.0, offset),
        (expected.protocol, transport),
        "{name}"
    );
    assert!(!payload.fragmented, "{name}: fragment");
    let ports = (
        u16::from_be(expected.source_port),
        u16::from_be(expected.destination_port),
    );
    let pseudo_header = [
        &addresses[..],
        &(segment.len() as u32).to_be_bytes(),
        &[0, 0, 0, expected.protocol],
    ]
    .concat();
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!((tcp.source_port(), tcp.destination_port()), ports, "{name}");
            assert_eq!(ones_sum(&pseudo_header, segment), 0xffff, "{name}: TCP checksum");
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!((udp.source_port(), udp.destination_port()), ports, "{name}");
            assert_eq!(usize::from(udp.length()), segment.len(), "{name}: UDP length");
            assert_eq!(ones_sum(&pseudo_header, segment), 0xffff, "{name}: UDP checksum");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(icmp.type_u8(), expected.detail, "{name}");
            assert_eq!(ones_sum(&[], segment), 0xffff, "{name}: ICMP checksum");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert_eq!(icmp.type_u8(), expected.detail, "{name}");
            assert_eq!(
                ones_sum(&pseudo_header, segment),
                0xffff,
                "{name}: ICMPv6 checksum"
            );
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
}

fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

/// The sum that a right checksum makes all ones (RFC 1071).
fn ones_sum(pseudo_header: &[u8], segment: &[u8]) -> u32 {
    let sum: u32 = pseudo_header
        .chunks(2)
        .chain(segment.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}
