//! Services by packet: a backend's address on the way out, the Service's on the way back, and checksums that are
//! right.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_abi::address::Address;
use weir_abi::event::FlowEvent;
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{Builder, icmp_error, sctp, tcp, udp};

use crate::bed::{ALLOWED, FAMILIES, Family, Scene, Seen, TC_ACT_OK, a_to_b, framed, rule, serve};
use crate::errors::about;
use crate::kernel_bed::{Bed, in_bed};

const ACK: u8 = tcp_flags::ACK;
const SYN: u8 = tcp_flags::SYN;

type Build = fn(IpAddr, IpAddr, u16, u16) -> Builder;

fn tcp_data(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Builder {
    tcp(source, destination, source_port, destination_port, ACK).payload(b"some data")
}

fn tcp_syn(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Builder {
    tcp(source, destination, source_port, destination_port, SYN)
}

fn udp_data(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Builder {
    udp(source, destination, source_port, destination_port).payload(b"who?!")
}

/// Port 80 leads to port 8080 of B, port 81 to nobody.
fn scene(bed: &Bed) -> Scene {
    let mut scene = Scene::new(bed);
    scene.change(|contents| {
        for family in FAMILIES {
            for protocol in [protocol::TCP, protocol::UDP] {
                serve(contents, family.service(), 80, protocol, &[(family.b(), 8_080)]);
                serve(contents, family.service(), 81, protocol, &[]);
            }
        }
    });
    scene
}

fn through_the_service(record: FlowEvent, family: Family) -> FlowEvent {
    FlowEvent {
        service: Address::from_ip(family.service()),
        service_port: 80u16.to_be(),
        ..record
    }
}

#[test]
fn lead_there_and_back() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (a, b, service) = (family.a(), family.b(), family.service());
            let kinds: [(u8, u8, Build, Build); 2] = [
                (protocol::TCP, SYN, tcp_syn, tcp_data),
                (protocol::UDP, 0, udp_data, udp_data),
            ];
            for (protocol, detail, first, later) in kinds {
                let opened = scene
                    .handed_to_b(&first(a, b, 4_000, 8_080).bytes(), Reason::Allowed)
                    .flows(2)
                    .rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)])
                    .record(through_the_service(
                        a_to_b(protocol, detail, 4_000, 8_080, family),
                        family,
                    ));
                assert_eq!(scene.sent_by_a(&first(a, service, 4_000, 80).bytes()), opened);
                for _ in 0..2 {
                    assert_eq!(
                        scene.sent_by_b(&later(b, a, 8_080, 4_000).bytes()),
                        scene.handed_to_a(&later(service, a, 80, 4_000).bytes(), Reason::Established)
                    );
                    assert_eq!(
                        scene.sent_by_a(&later(a, service, 4_000, 80).bytes()),
                        scene.handed_to_b(&later(a, b, 4_000, 8_080).bytes(), Reason::Established)
                    );
                }
            }
        }
    });
}

/// RFC 768: no checksum stays none. RFC 8200: IPv6 has no such thing.
#[test]
fn leave_a_missing_checksum_missing() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        let family = Family::V4;
        let without = |packet: Builder| {
            let mut bytes = packet.bytes();
            bytes[14 + 20 + 6..14 + 20 + 8].fill(0);
            bytes
        };
        let seen = scene.sent_by_a(&without(udp_data(family.a(), family.service(), 4_000, 80)));
        let expected = scene.handed_to_b(
            &without(udp_data(family.a(), family.b(), 4_000, 8_080)),
            Reason::Allowed,
        );
        assert_eq!(seen.packet, expected.packet);
    });
}

#[test]
fn without_a_backend_lead_nowhere() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let packet = tcp_syn(family.a(), family.service(), 4_000, 81).bytes();
            assert_eq!(
                scene.sent_by_a(&packet),
                Seen::dropped(&packet, Reason::NoBackend)
            );
            // A port that is none of the Service's is nothing special: policy knows nobody there.
            let packet = tcp_syn(family.a(), family.service(), 4_000, 82).bytes();
            assert_eq!(scene.sent_by_a(&packet).reasons, [(Reason::Isolated, 1)].into());
        }
    });
}

#[test]
fn end_with_both_entries() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (a, b, service) = (family.a(), family.b(), family.service());
            assert_eq!(scene.sent_by_a(&tcp_syn(a, service, 4_000, 80).bytes()).flows, 2);
            scene.sent_by_b(&tcp(b, a, 8_080, 4_000, SYN | ACK).bytes());
            let reset = tcp(b, a, 8_080, 4_000, tcp_flags::RST).bytes();
            let gone = scene.sent_by_b(&reset);
            assert_eq!(
                gone.packet,
                scene
                    .handed_to_a(
                        &tcp(service, a, 80, 4_000, tcp_flags::RST).bytes(),
                        Reason::Established
                    )
                    .packet
            );
            // The client's entry goes with its next packet, or with the next one that opens the same.
            let again = scene.sent_by_a(&tcp_syn(a, service, 4_000, 80).bytes());
            assert_eq!(again.reasons, [(Reason::Allowed, 1)].into(), "{again:?}");
            assert_eq!(gone.flows + again.flows, 0);
        }
    });
}

/// Every backend is met, and a connection keeps its own.
#[test]
fn spread_over_their_backends() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let ports: BTreeSet<u16> = (8_080..8_084).collect();
            let backends: Vec<(IpAddr, u16)> = ports.iter().map(|port| (family.b(), *port)).collect();
            scene.change(|contents| serve(contents, family.service(), 80, protocol::UDP, &backends));
            let mut met = BTreeSet::new();
            for client_port in 1_000..1_100 {
                let packet = udp_data(family.a(), family.service(), client_port, 80).bytes();
                let record = scene.sent_by_a(&packet).records[0];
                met.insert(u16::from_be(record.destination_port));
                let kept = udp_data(
                    family.a(),
                    family.b(),
                    client_port,
                    u16::from_be(record.destination_port),
                );
                let again = scene.sent_by_a(&packet);
                assert_eq!(again, scene.handed_to_b(&kept.bytes(), Reason::Established));
            }
            assert_eq!(met, ports);
        }
    });
}

/// As the API server's own Service does: the backend is an address of the node.
#[test]
fn lead_to_the_node_itself() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, node, service) = (family.a(), family.node(), family.service());
            scene.change(|contents| serve(contents, service, 443, protocol::TCP, &[(node, 6_443)]));
            let seen = scene.sent_by_a(&tcp_syn(a, service, 4_000, 443).bytes());
            let there = Seen::passed(&tcp_syn(a, node, 4_000, 6_443).bytes(), Reason::LocalNode);
            assert_eq!(Seen { flows: 0, ..seen }, there);
            let answer = tcp(node, a, 6_443, 4_000, SYN | ACK).bytes();
            let back = tcp(service, a, 443, 4_000, SYN | ACK).bytes();
            let seen = scene.run("to_pod", scene.a, &answer);
            assert_eq!((seen.action, seen.packet), (TC_ACT_OK, back));
        }
    });
}

/// Through its Service a pod may meet itself.
#[test]
fn lead_a_pod_to_itself() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, service) = (family.a(), family.service());
            scene.change(|contents| serve(contents, service, 90, protocol::TCP, &[(a, 9_090)]));
            let seen = scene.sent_by_a(&tcp_syn(a, service, 4_000, 90).bytes());
            assert_eq!(seen.reasons, [(Reason::ToItself, 1)].into(), "{seen:?}");
        }
    });
}

/// The checksum of SCTP covers no addresses but the ports (RFC 9260, section 3.1, and appendix A).
#[test]
fn for_sctp_lead_there_or_say_why_not() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b, service) = (family.a(), family.b(), family.service());
            scene.change(|contents| {
                serve(contents, service, 99, protocol::SCTP, &[(b, 99)]);
                serve(contents, service, 100, protocol::SCTP, &[(b, 9_999)]);
            });
            let seen = scene.sent_by_a(&sctp(a, service, 4_000, 99).bytes());
            assert_eq!(
                seen.packet,
                scene
                    .handed_to_b(&sctp(a, b, 4_000, 99).bytes(), Reason::Allowed)
                    .packet
            );
            // A port that cannot be translated must not arrive as another one.
            let packet = sctp(a, service, 4_001, 100).bytes();
            let seen = scene.sent_by_a(&packet);
            let translated = scene.handed_to_b(&sctp(a, b, 4_001, 9_999).bytes(), Reason::Allowed);
            assert!(
                seen.reasons == [(Reason::RewriteFailed, 1)].into() || seen.packet == translated.packet,
                "{seen:?}"
            );
        }
    });
}

/// An error about a translated packet comes back about the packet that was sent.
#[test]
fn hear_of_errors_under_their_own_address() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (a, b, service) = (family.a(), family.b(), family.service());
            let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
            let sent = udp_data(a, service, 4_000, 80).bytes();
            let arrived = udp_data(a, b, 4_000, 8_080).bytes();
            scene.sent_by_a(&sent);
            let seen = scene.sent_by_b(&icmp_error(b, a, kind, code, &arrived).bytes());
            let expected = about(service, a, kind, code, &sent, &arrived);
            assert_eq!(seen.action, 7, "{seen:?}");
            assert_eq!(seen.reasons, [(Reason::RelatedError, 1)].into());
            let workload = scene.contents.workloads[&Address::from_ip(a)];
            assert_eq!(seen.packet, framed(&expected, &workload), "{family:?}");
        }
    });
}
