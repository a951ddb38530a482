//! Every kind of header, and the whole of what the parser makes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_abi::address::Address;
use weir_abi::limits::EXTENSION_HEADERS;
use weir_abi::reason::Reason;
use weir_datapath::packet::tcp_flags::{ACK, FIN, SYN};
use weir_datapath::packet::{Packet, protocol, shape};
use weir_datapath::parse::parse;
use weir_datapath::testing::{
    Builder, Extension, FULL, arp, echo, echo_reply, ether_type, ethernet, icmp, icmp_error,
    neighbour_discovery, other, sctp, tcp, udp,
};

const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 254));
const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7));
const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53));
const FAMILIES: [(IpAddr, IpAddr); 2] = [(A4, B4), (A6, B6)];

/// Ports that differ in both bytes, so that a swap of bytes shows.
const SPORT: u16 = 0x9c41;
const DPORT: u16 = 0x01bb;

/// Parses over what another packet has left, so that a field that is not written shows.
fn parsed(frame: &[u8]) -> Result<Packet, Reason> {
    let mut packet = FULL;
    parse(frame, &mut packet).map(|()| packet)
}

/// What every packet from `source` to `destination` without options has.
fn base(source: IpAddr, destination: IpAddr, protocol: u8) -> Packet {
    Packet {
        source: Address::from_ip(source),
        destination: Address::from_ip(destination),
        protocol,
        family: if source.is_ipv4() { 4 } else { 6 },
        transport: 14 + ip_header(source),
        ..Packet::default()
    }
}

/// [`base`], from [`SPORT`] to [`DPORT`].
fn with_ports(source: IpAddr, destination: IpAddr, protocol: u8) -> Packet {
    Packet {
        source_port: SPORT.to_be(),
        destination_port: DPORT.to_be(),
        ..base(source, destination, protocol)
    }
}

fn ip_header(address: IpAddr) -> u16 {
    if address.is_ipv4() { 20 } else { 40 }
}

fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    }
}

/// An error from `source` to `destination`, about a packet that parses to `about`.
fn error(icmp_type: u8, source: IpAddr, destination: IpAddr, about: Packet) -> Packet {
    let quoted = 14 + ip_header(source) + 8;
    Packet {
        shape: shape::ICMP_ERROR,
        detail: icmp_type,
        quoted,
        quoted_transport: quoted + (about.transport - 14),
        quoted_source: about.source,
        quoted_destination: about.destination,
        quoted_source_port: about.source_port,
        quoted_destination_port: about.destination_port,
        quoted_protocol: about.protocol,
        ..base(source, destination, icmp_of(source))
    }
}

/// `packet`, with `length` more bytes in its own IP header.
fn moved(packet: Packet, length: u16) -> Packet {
    let quoted = |offset| {
        if packet.shape == shape::ICMP_ERROR {
            offset + length
        } else {
            0
        }
    };
    Packet {
        transport: packet.transport + length,
        quoted: quoted(packet.quoted),
        quoted_transport: quoted(packet.quoted_transport),
        ..packet
    }
}

fn assert_parses(builder: &Builder, expected: Packet) {
    assert_eq!(parsed(&builder.bytes()), Ok(expected), "{builder:?}");
}

#[test]
fn ports_and_flags() {
    for (a, b) in FAMILIES {
        assert_parses(&udp(a, b, SPORT, DPORT), with_ports(a, b, protocol::UDP));
        assert_parses(
            &udp(a, b, SPORT, DPORT).payload(b"x"),
            with_ports(a, b, protocol::UDP),
        );
        assert_parses(&sctp(a, b, SPORT, DPORT), with_ports(a, b, protocol::SCTP));
        for flags in [0, SYN, SYN | ACK, FIN | ACK, 0xff] {
            let expected = Packet {
                detail: flags,
                ..with_ports(a, b, protocol::TCP)
            };
            assert_parses(&tcp(a, b, SPORT, DPORT, flags), expected);
        }
    }
}

#[test]
fn echo_has_its_identifier_in_both_ports() {
    for (a, b) in FAMILIES {
        let expected = |detail| Packet {
            source_port: 0x1234_u16.to_be(),
            destination_port: 0x1234_u16.to_be(),
            detail,
            ..base(a, b, icmp_of(a))
        };
        assert_parses(&echo(a, b, 0x1234), expected(if a.is_ipv4() { 8 } else { 128 }));
        assert_parses(
            &echo_reply(a, b, 0x1234),
            expected(if a.is_ipv4() { 0 } else { 129 }),
        );
    }
}

#[test]
fn other_icmp_has_no_ports() {
    // Among them a redirect (5), which quotes a packet and is no error.
    for icmp_type in [1, 2, 5, 6, 7, 9, 10, 13, 14, 67, 68, 75, 76, 128, 129, 133, 255] {
        let packet = icmp(A4, B4, icmp_type, 0, [1, 2, 3, 4]).payload(&[0x45; 40]);
        assert_parses(
            &packet,
            Packet {
                detail: icmp_type,
                ..base(A4, B4, protocol::ICMP)
            },
        );
    }
    for icmp_type in [0, 5, 8, 65, 100, 127, 130, 131, 132, 138, 143, 255] {
        let packet = icmp(A6, B6, icmp_type, 0, [1, 2, 3, 4]).payload(&[0x60; 60]);
        assert_parses(
            &packet,
            Packet {
                detail: icmp_type,
                ..base(A6, B6, protocol::ICMPV6)
            },
        );
    }
}

#[test]
fn a_protocol_without_ports_needs_no_transport_header() {
    for (a, b) in FAMILIES {
        // GRE, ESP, "no next header", and each family's ICMP in the other family.
        for protocol in [47, 50, 59, 255, if a.is_ipv4() { 58 } else { 1 }] {
            assert_parses(&other(a, b, protocol, &[]), base(a, b, protocol));
            assert_parses(&other(a, b, protocol, &[3; 64]), base(a, b, protocol));
        }
    }
    // What IPv6 has for extension headers are protocols in IPv4.
    for protocol in [0, 43, 44, 51, 60] {
        assert_parses(&other(A4, B4, protocol, &[]), base(A4, B4, protocol));
    }
    // Numbers that are 64, or 128, above those of extension headers.
    for protocol in [64, 107, 108, 115, 124, 128, 171, 172, 179, 188] {
        assert_parses(&other(A6, B6, protocol, &[]), base(A6, B6, protocol));
    }
}

#[test]
fn ipv4_options_move_the_transport_header() {
    for words in 0..=10 {
        let expected = moved(with_ports(A4, B4, protocol::UDP), 4 * u16::from(words));
        assert_parses(&udp(A4, B4, SPORT, DPORT).options(words), expected);
    }
}

#[test]
fn each_extension_header_is_followed() {
    let cases = [
        (Extension::HopByHop(0), 8),
        (Extension::HopByHop(255), 2048),
        (Extension::Routing(0), 8),
        (Extension::Routing(4), 40),
        (Extension::Destination(1), 16),
        (Extension::Authentication(1), 12),
        (Extension::Authentication(4), 24),
        (Extension::Authentication(255), 1028),
        (Extension::Atomic(0x0102_0304), 8),
    ];
    for (extension, length) in cases {
        let expected = Packet {
            detail: ACK,
            ..moved(with_ports(A6, B6, protocol::TCP), length)
        };
        assert_parses(&tcp(A6, B6, SPORT, DPORT, ACK).extension(extension), expected);
        // ESP and "no next header" end the chain and are the protocol.
        for protocol in [50, 59] {
            let packet = other(A6, B6, protocol, &[]).extension(extension);
            assert_parses(&packet, moved(base(A6, B6, protocol), length));
        }
    }
}

#[test]
fn the_length_of_a_fragment_header_is_fixed() {
    // The byte in which the others have their length is reserved (RFC 8200, section 4.5).
    let mut frame = udp(A6, B6, SPORT, DPORT).extension(Extension::Atomic(1)).bytes();
    frame[55] = 0xff;
    assert_eq!(parsed(&frame), Ok(moved(with_ports(A6, B6, protocol::UDP), 8)));
    // So are two bits beside the flag.
    frame[57] = 0b110;
    assert_eq!(parsed(&frame), Ok(moved(with_ports(A6, B6, protocol::UDP), 8)));
}

#[test]
fn as_many_extension_headers_as_the_limit_says() {
    let headers = [
        Extension::HopByHop(0),
        Extension::Destination(2),
        Extension::Routing(3),
        Extension::Atomic(9),
        Extension::Authentication(4),
        Extension::Destination(1),
    ];
    assert_eq!(headers.len(), EXTENSION_HEADERS as usize);
    let all = headers
        .into_iter()
        .fold(udp(A6, B6, SPORT, DPORT), Builder::extension);
    let expected = moved(with_ports(A6, B6, protocol::UDP), 8 + 24 + 32 + 8 + 24 + 16);
    assert_parses(&all, expected);
    assert_parses(
        &icmp_error(B6, A6, 1, 0, &all.bytes()),
        error(1, B6, A6, expected),
    );

    let one_more = all.extension(Extension::Destination(0));
    assert_eq!(parsed(&one_more.bytes()), Err(Reason::TooManyHeaders));
    assert_eq!(
        parsed(&icmp_error(B6, A6, 1, 0, &one_more.bytes()).bytes()),
        Err(Reason::TooManyHeaders)
    );
}

#[test]
fn fragments() {
    for (a, b) in FAMILIES {
        let (identification, ours, header) = if a.is_ipv4() {
            (0xabcd, u32::from(0xabcd_u16.to_be()), 0)
        } else {
            (0x89ab_cdef, 0x89ab_cdef_u32.to_be(), 8)
        };
        let whole = udp(a, b, SPORT, DPORT).payload(&[0x5a; 100]);
        let first = Packet {
            shape: shape::FIRST_FRAGMENT,
            identification: ours,
            ..moved(with_ports(a, b, protocol::UDP), header)
        };
        let later = Packet {
            shape: shape::LATER_FRAGMENT,
            source_port: 0,
            destination_port: 0,
            ..first
        };
        assert_parses(&whole.clone().fragment(identification, 0..8), first);
        assert_parses(&whole.clone().fragment(identification, 0..104), first);
        assert_parses(&whole.clone().fragment(identification, 8..64), later);
        assert_parses(&whole.clone().last_fragment(identification, 64..), later);
        // Shorter than any transport header.
        assert_parses(&whole.clone().last_fragment(identification, 104..), later);
    }
}

#[test]
fn a_first_fragment_must_have_its_transport_header() {
    for (a, b) in FAMILIES {
        let packet = tcp(a, b, SPORT, DPORT, SYN).payload(&[0; 32]);
        assert_eq!(
            parsed(&packet.clone().fragment(7, 0..16).bytes()),
            Err(Reason::Truncated)
        );
        assert_eq!(
            parsed(&packet.fragment(7, 0..24).bytes()).map(|packet| packet.detail),
            Ok(SYN)
        );
    }
}

#[test]
fn a_first_fragment_of_icmp_is_never_an_error_or_neighbour_discovery() {
    for (a, b) in FAMILIES {
        let about = udp(b, a, DPORT, SPORT).payload(&[0x5a; 64]).bytes();
        let (icmp_type, identification, header) = if a.is_ipv4() {
            (3, u32::from(7_u16.to_be()), 0)
        } else {
            (1, 7_u32.to_be(), 8)
        };
        let expected = Packet {
            shape: shape::FIRST_FRAGMENT,
            identification,
            detail: icmp_type,
            ..moved(base(a, b, icmp_of(a)), header)
        };
        assert_parses(
            &icmp_error(a, b, icmp_type, 0, &about).fragment(7, 0..64),
            expected,
        );
        if a.is_ipv6() {
            let solicitation = neighbour_discovery(a, b, 135).fragment(7, 0..16);
            assert_parses(
                &solicitation,
                Packet {
                    detail: 135,
                    ..expected
                },
            );
        }
    }
}

#[test]
fn a_later_fragment_ends_the_chain_whatever_its_next_header_says() {
    let packet = udp(A6, B6, SPORT, DPORT)
        .payload(&[0; 64])
        .extension(Extension::HopByHop(0))
        .last_fragment(7, 16..)
        .extension(Extension::Destination(0));
    let expected = Packet {
        shape: shape::LATER_FRAGMENT,
        identification: 7_u32.to_be(),
        ..moved(base(A6, B6, 60), 8 + 8)
    };
    assert_parses(&packet, expected);
}

#[test]
fn a_first_fragment_is_followed_to_its_transport_header() {
    let packet = udp(A6, B6, SPORT, DPORT)
        .payload(&[0; 64])
        .extension(Extension::HopByHop(0))
        .fragment(7, 0..32)
        .extension(Extension::Destination(1));
    let expected = Packet {
        shape: shape::FIRST_FRAGMENT,
        identification: 7_u32.to_be(),
        ..moved(with_ports(A6, B6, protocol::UDP), 8 + 8 + 16)
    };
    assert_parses(&packet, expected);
}

#[test]
fn a_fragment_of_a_fragment_is_malformed() {
    let inner = udp(A6, B6, SPORT, DPORT).payload(&[0; 64]);
    let atomic = Extension::Atomic(8);
    for packet in [
        inner.clone().fragment(7, 0..24).extension(atomic),
        inner.clone().extension(atomic).fragment(7, 0..24),
        inner.clone().extension(atomic).last_fragment(7, 24..),
        inner.clone().extension(atomic).extension(atomic),
        (0..EXTENSION_HEADERS).fold(inner, |packet, _| packet.extension(atomic)),
    ] {
        assert_eq!(parsed(&packet.bytes()), Err(Reason::Malformed), "{packet:?}");
    }
}

#[test]
fn errors_carry_the_quoted_packet() {
    for (a, b) in FAMILIES {
        let types: &[u8] = if a.is_ipv4() {
            &[3, 4, 11, 12]
        } else {
            &[1, 2, 3, 4]
        };
        for &icmp_type in types {
            for about in [
                tcp(b, a, DPORT, SPORT, ACK),
                udp(b, a, DPORT, SPORT),
                sctp(b, a, DPORT, SPORT),
                echo(b, a, 0x4321),
                echo_reply(b, a, 0x4321),
                other(b, a, 47, &[0; 8]),
                other(b, a, 50, &[]),
                icmp(b, a, 200, 0, [9; 4]),
            ] {
                let frame = about.bytes();
                let quoted = parsed(&frame).expect("a packet that parses");
                let packet = icmp_error(a, b, icmp_type, 0, &frame);
                assert_parses(&packet, error(icmp_type, a, b, quoted));
            }
        }
    }
}

#[test]
fn a_quote_may_end_eight_bytes_behind_the_ip_header() {
    for (a, b) in FAMILIES {
        let icmp_type = if a.is_ipv4() { 3 } else { 1 };
        for about in [
            tcp(b, a, DPORT, SPORT, ACK),
            udp(b, a, DPORT, SPORT).payload(b"long"),
            sctp(b, a, DPORT, SPORT),
            echo(b, a, 7),
        ] {
            let frame = about.bytes();
            let quoted = parsed(&frame).expect("a packet that parses");
            let enough = usize::from(quoted.transport) + 8;
            let packet = icmp_error(a, b, icmp_type, 0, &frame[..enough]);
            assert_parses(&packet, error(icmp_type, a, b, quoted));
            let short = icmp_error(a, b, icmp_type, 0, &frame[..enough - 1]);
            assert_eq!(parsed(&short.bytes()), Err(Reason::Truncated), "{short:?}");
        }
    }
}

#[test]
fn errors_about_options_and_extension_headers() {
    let options = tcp(B4, A4, DPORT, SPORT, SYN).options(10).bytes();
    let expected = error(3, A4, B4, parsed(&options).expect("a packet that parses"));
    assert_parses(&icmp_error(A4, B4, 3, 3, &options), expected);
    assert_parses(&icmp_error(A4, B4, 3, 3, &options).options(2), moved(expected, 8));

    let extended = tcp(B6, A6, DPORT, SPORT, SYN)
        .extension(Extension::HopByHop(1))
        .extension(Extension::Atomic(3))
        .extension(Extension::Authentication(4))
        .bytes();
    let expected = error(2, A6, B6, parsed(&extended).expect("a packet that parses"));
    assert_parses(&icmp_error(A6, B6, 2, 0, &extended), expected);
    let packet = icmp_error(A6, B6, 2, 0, &extended).extension(Extension::Destination(1));
    assert_parses(&packet, moved(expected, 16));
}

#[test]
fn errors_about_fragments() {
    for (a, b) in FAMILIES {
        let icmp_type = if a.is_ipv4() { 11 } else { 3 };
        let whole = udp(b, a, DPORT, SPORT).payload(&[0; 64]);
        // A later fragment has no ports to quote.
        for part in [whole.clone().fragment(7, 0..32), whole.last_fragment(7, 32..)] {
            let frame = part.bytes();
            let quoted = parsed(&frame).expect("a packet that parses");
            assert_parses(
                &icmp_error(a, b, icmp_type, 1, &frame),
                error(icmp_type, a, b, quoted),
            );
        }
    }
}

#[test]
fn an_error_about_an_error_has_no_ports() {
    for (a, b) in FAMILIES {
        let icmp_type = if a.is_ipv4() { 3 } else { 1 };
        let inner = icmp_error(b, a, icmp_type, 0, &udp(a, b, SPORT, DPORT).bytes()).bytes();
        let quoted = base(b, a, icmp_of(a));
        assert_parses(
            &icmp_error(a, b, icmp_type, 0, &inner),
            error(icmp_type, a, b, quoted),
        );
    }
}

#[test]
fn a_quoted_packet_is_of_the_same_family() {
    for (a, b) in FAMILIES {
        let icmp_type = if a.is_ipv4() { 3 } else { 1 };
        let mut about = udp(b, a, DPORT, SPORT).bytes();
        for first in [0x35, 0x40, 0x44, 0x75, if a.is_ipv4() { 0x60 } else { 0x45 }] {
            about[14] = first;
            let packet = icmp_error(a, b, icmp_type, 0, &about);
            assert_eq!(parsed(&packet.bytes()), Err(Reason::Malformed), "{first:#x}");
        }
    }
}

#[test]
fn a_quoted_total_length_may_be_anything() {
    let mut about = udp(B4, A4, DPORT, SPORT).bytes();
    let quoted = parsed(&about).expect("a packet that parses");
    about[16..18].copy_from_slice(&[0, 1]);
    assert_parses(&icmp_error(A4, B4, 3, 0, &about), error(3, A4, B4, quoted));
}

#[test]
fn neighbour_discovery_comes_from_the_link_only() {
    for icmp_type in 133..=137 {
        let packet = neighbour_discovery(A6, B6, icmp_type);
        let expected = Packet {
            shape: shape::NEIGHBOUR_DISCOVERY,
            detail: icmp_type,
            ..base(A6, B6, protocol::ICMPV6)
        };
        assert_parses(&packet, expected);
        assert_parses(
            &packet.clone().extension(Extension::HopByHop(0)),
            moved(expected, 8),
        );
        for hop_limit in [0, 64, 254] {
            let far = packet.clone().hop_limit(hop_limit);
            assert_eq!(parsed(&far.bytes()), Err(Reason::Malformed), "{far:?}");
        }
    }
}

#[test]
fn arp_has_a_shape_and_nothing_else() {
    let frame = arp(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(
        parsed(&frame),
        Ok(Packet {
            shape: shape::ARP,
            ..Packet::default()
        })
    );
}

#[test]
fn other_ethernet_is_not_supported() {
    // VLAN, QinQ, MPLS, LLDP, and a length in place of a type.
    for ether_type in [ether_type::VLAN, 0x88a8, 0x8847, 0x88cc, 46] {
        assert_eq!(
            parsed(&ethernet(ether_type, &[0x45; 46])),
            Err(Reason::UnsupportedEtherType)
        );
    }
}

#[test]
fn contradictions_are_malformed() {
    let v4 = udp(A4, B4, SPORT, DPORT).payload(&[0; 40]).bytes();
    // Version 4 with lengths of 0 to 4 words, and other versions.
    for first in (0x40..=0x44).chain([0x05, 0x35, 0x50, 0x55, 0x65, 0xf5]) {
        let mut frame = v4.clone();
        frame[14] = first;
        assert_eq!(parsed(&frame), Err(Reason::Malformed), "{first:#x}");
    }
    for (first, total) in [(0x45, 1), (0x45, 19), (0x46, 23), (0x4f, 59)] {
        let mut frame = v4.clone();
        frame[14] = first;
        frame[16..18].copy_from_slice(&u16::to_be_bytes(total));
        assert_eq!(
            parsed(&frame),
            Err(Reason::Malformed),
            "{first:#x}, {total} bytes"
        );
    }
    for first in [0x00, 0x45, 0x50, 0x70, 0xf0] {
        let mut frame = udp(A6, B6, SPORT, DPORT).bytes();
        frame[14] = first;
        assert_eq!(parsed(&frame), Err(Reason::Malformed), "{first:#x}");
    }
}

#[test]
fn big_tcp_has_a_total_length_of_0() {
    let mut frame = tcp(A4, B4, SPORT, DPORT, ACK).bytes();
    let expected = parsed(&frame);
    assert!(expected.is_ok(), "{expected:?}");
    frame[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(parsed(&frame), expected);
}
