//! One packet of each kind.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Builder, Extension, arp, echo, echo_reply, ether_type, ethernet, icmp, icmp_error, neighbour_discovery,
    other, sctp, tcp, udp,
};
use crate::packet::tcp_flags;

const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xa);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xb);

/// Named frames: every kind of packet that the parser tells apart, in both families, well-formed. Names are file
/// names, and unique.
pub fn samples() -> Vec<(String, Vec<u8>)> {
    let mut samples = Vec::from([
        (String::from("arp"), arp(A4, B4)),
        (String::from("vlan"), ethernet(ether_type::VLAN, &[0; 46])),
    ]);
    for (family, a, b) in [
        ("v4", IpAddr::V4(A4), IpAddr::V4(B4)),
        ("v6", IpAddr::V6(A6), IpAddr::V6(B6)),
    ] {
        let mut add = |name: &str, frame: Vec<u8>| samples.push((format!("{name}-{family}"), frame));
        for (name, packet) in whole(a, b) {
            add(name, packet.bytes());
            let unreachable = if a.is_ipv4() { 3 } else { 1 };
            add(
                &format!("error-about-{name}"),
                icmp_error(b, a, unreachable, 1, &packet.bytes()).bytes(),
            );
        }
        let long = udp(a, b, 40_000, 53).payload(&[0x5a; 64]);
        add("first-fragment", long.clone().fragment(7, 0..32).bytes());
        add("later-fragment", long.clone().fragment(7, 32..48).bytes());
        add("last-fragment", long.clone().last_fragment(7, 48..).bytes());
        let quoted = long.last_fragment(7, 32..).bytes();
        add(
            "error-about-fragment",
            icmp_error(b, a, if a.is_ipv4() { 11 } else { 3 }, 1, &quoted).bytes(),
        );
        let errors: &[u8] = if a.is_ipv4() {
            &[3, 4, 11, 12]
        } else {
            &[1, 2, 3, 4]
        };
        for &icmp_type in errors {
            let about = tcp(a, b, 40_000, 80, tcp_flags::SYN).bytes();
            add(
                &format!("error-{icmp_type}"),
                icmp_error(b, a, icmp_type, 0, &about).bytes(),
            );
        }
    }
    let about = tcp(A4.into(), B4.into(), 40_000, 80, tcp_flags::SYN).options(3);
    samples.push((String::from("options-v4"), about.bytes()));
    samples.push((
        String::from("error-about-options-v4"),
        icmp_error(B4.into(), A4.into(), 3, 3, &about.bytes())
            .options(10)
            .bytes(),
    ));
    samples.push((
        String::from("redirect-v4"),
        icmp_error(B4.into(), A4.into(), 5, 1, &about.bytes()).bytes(),
    ));
    samples.extend(extended());
    for icmp_type in 133..=137 {
        let packet = neighbour_discovery(A6.into(), B6.into(), icmp_type);
        samples.push((format!("neighbour-discovery-{icmp_type}"), packet.bytes()));
    }
    samples
}

fn whole(a: IpAddr, b: IpAddr) -> Vec<(&'static str, Builder)> {
    Vec::from([
        ("tcp", tcp(a, b, 40_000, 80, tcp_flags::SYN)),
        ("udp", udp(a, b, 40_000, 53).payload(b"query")),
        ("sctp", sctp(a, b, 40_000, 5_060).payload(b"data")),
        ("echo", echo(a, b, 0x1234).payload(&[0xa5; 16])),
        ("echo-reply", echo_reply(a, b, 0x1234).payload(&[0xa5; 16])),
        (
            "icmp",
            icmp(a, b, if a.is_ipv4() { 13 } else { 143 }, 0, [0; 4]).payload(&[0; 12]),
        ),
        ("esp", other(a, b, 50, &[0; 32])),
        ("gre", other(a, b, 47, &[0; 4])),
    ])
}

/// IPv6 packets with extension headers, and errors about them.
fn extended() -> Vec<(String, Vec<u8>)> {
    let (a, b) = (IpAddr::V6(A6), IpAddr::V6(B6));
    let plain = || tcp(a, b, 40_000, 80, tcp_flags::ACK);
    let long = || udp(a, b, 40_000, 53).payload(&[0x5a; 64]);
    let all = plain()
        .extension(Extension::HopByHop(0))
        .extension(Extension::Destination(2))
        .extension(Extension::Routing(3))
        .extension(Extension::Atomic(9))
        .extension(Extension::Authentication(4))
        .extension(Extension::Destination(1));
    [
        ("hop-by-hop", plain().extension(Extension::HopByHop(0))),
        ("routing", plain().extension(Extension::Routing(2))),
        (
            "destination-options",
            plain().extension(Extension::Destination(63)),
        ),
        ("authentication", plain().extension(Extension::Authentication(4))),
        ("atomic-fragment", plain().extension(Extension::Atomic(9))),
        (
            "no-next-header",
            other(a, b, 59, &[]).extension(Extension::Destination(0)),
        ),
        ("all-extensions", all),
        (
            "extended-first-fragment",
            long()
                .extension(Extension::HopByHop(0))
                .fragment(9, 0..32)
                .extension(Extension::Destination(0)),
        ),
        (
            "extended-later-fragment",
            long()
                .extension(Extension::HopByHop(0))
                .last_fragment(9, 32..)
                .extension(Extension::Destination(0)),
        ),
    ]
    .into_iter()
    .flat_map(|(name, packet)| {
        let error = icmp_error(b, a, 1, 4, &packet.bytes()).extension(Extension::Destination(0));
        [
            (format!("{name}-v6"), packet.bytes()),
            (format!("error-about-{name}-v6"), error.bytes()),
        ]
    })
    .collect()
}
