//! Host ports: a port of the node is a pod's, from outside and from the pods beside it.

use std::net::IpAddr;

use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{Builder, icmp_error, tcp, udp};

use crate::bed::{ALLOWED, DENIED, FAMILIES, Scene, Seen, rule, serve};
use crate::errors::{about, unreachable};
use crate::kernel_bed::{Bed, in_bed};

type Build = fn(IpAddr, IpAddr, u16, u16) -> Builder;

const ACK: u8 = tcp_flags::ACK;
const SYN: u8 = tcp_flags::SYN;

/// Port 80 of the node leads to port 8080 of B.
fn scene(bed: &Bed) -> Scene {
    let mut scene = Scene::new(bed);
    scene.change(|contents| {
        for family in FAMILIES {
            for protocol in [protocol::TCP, protocol::UDP] {
                serve(contents, family.node(), 80, protocol, &[(family.b(), 8_080)]);
            }
        }
    });
    scene
}

fn from_wire(scene: &mut Scene, packet: &[u8]) -> Seen {
    scene.run("from_wire", scene.other, packet)
}

#[test]
fn lead_there_and_back() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (a, b, node, stranger) = (family.a(), family.b(), family.node(), family.stranger());
            let kinds: [(Build, u8); 2] = [
                (
                    |from, to, source, destination| tcp(from, to, source, destination, SYN),
                    SYN | ACK,
                ),
                (
                    |from, to, source, destination| udp(from, to, source, destination),
                    0,
                ),
            ];
            for (first, flags) in kinds {
                let answer = |from, to, source, destination| {
                    if flags == 0 {
                        udp(from, to, source, destination).bytes()
                    } else {
                        tcp(from, to, source, destination, flags).bytes()
                    }
                };
                let seen = from_wire(&mut scene, &first(stranger, node, 5_000, 80).bytes());
                assert_eq!(
                    Seen {
                        records: vec![],
                        ..seen
                    },
                    scene
                        .handed_to_b(&first(stranger, b, 5_000, 8_080).bytes(), Reason::Allowed)
                        .flows(2)
                        .rules(&[(rule::B_FROM_STRANGER, ALLOWED)])
                );
                for _ in 0..2 {
                    assert_eq!(
                        scene.sent_by_b(&answer(b, stranger, 8_080, 5_000)),
                        Seen::passed(&answer(node, stranger, 80, 5_000), Reason::Established)
                    );
                }
                // From the pod beside it.
                let seen = scene.sent_by_a(&first(a, node, 4_000, 80).bytes());
                assert_eq!(
                    Seen {
                        records: vec![],
                        ..seen
                    },
                    scene
                        .handed_to_b(&first(a, b, 4_000, 8_080).bytes(), Reason::Allowed)
                        .flows(2)
                        .rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)])
                );
                assert_eq!(
                    scene.sent_by_b(&answer(b, a, 8_080, 4_000)),
                    scene.handed_to_a(&answer(node, a, 80, 4_000), Reason::Established)
                );
            }
        }
    });
}

/// The pod's policy judges who comes by its node's port as it judges who comes by its own.
#[test]
fn are_no_way_around_policy() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let packet = tcp(family.unknown(), family.node(), 5_000, 80, SYN).bytes();
            let seen = from_wire(&mut scene, &packet);
            assert_eq!(
                Seen {
                    records: vec![],
                    ..seen
                },
                Seen::dropped(&packet, Reason::Isolated).rules(&[(rule::B_ISOLATED, DENIED)])
            );
            // Nobody outside is a pod of this node.
            let packet = tcp(family.a(), family.node(), 5_000, 80, SYN).bytes();
            assert_eq!(
                from_wire(&mut scene, &packet),
                Seen::passed(&packet, Reason::NotForPod)
            );
        }
    });
}

/// Traffic of the node with its own pods is always allowed, so nobody outside may pass for the node.
#[test]
fn and_nobody_outside_is_the_node() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            for (to, port) in [(family.b(), 8_080), (family.node(), 80)] {
                let packet = tcp(family.node(), to, 5_000, port, SYN).bytes();
                assert_eq!(
                    from_wire(&mut scene, &packet),
                    Seen::dropped(&packet, Reason::SourceNotOwn)
                );
            }
        }
    });
}

/// What has no host port stays the node's.
#[test]
fn take_nothing_else_from_the_node() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (node, stranger) = (family.node(), family.stranger());
            for packet in [
                tcp(stranger, node, 5_000, 81, SYN).bytes(),
                tcp(stranger, family.unknown(), 5_000, 80, SYN).bytes(),
            ] {
                assert_eq!(
                    from_wire(&mut scene, &packet),
                    Seen::passed(&packet, Reason::NotForPod)
                );
            }
        }
    });
}

/// An error of the pod's goes out about the packet that came in.
#[test]
fn errors_tell_of_the_packet_that_was_sent() {
    in_bed(|bed| {
        let mut scene = scene(bed);
        for family in FAMILIES {
            let (b, node, stranger) = (family.b(), family.node(), family.stranger());
            let (kind, code) = unreachable(family);
            let sent = udp(stranger, node, 5_000, 80).payload(b"who?!").bytes();
            let arrived = udp(stranger, b, 5_000, 8_080).payload(b"who?!").bytes();
            assert_eq!(
                from_wire(&mut scene, &sent).reasons,
                [(Reason::Allowed, 1)].into()
            );
            assert_eq!(
                scene.sent_by_b(&icmp_error(b, stranger, kind, code, &arrived).bytes()),
                Seen::passed(
                    &about(node, stranger, kind, code, &sent, &arrived),
                    Reason::RelatedError
                )
            );
        }
    });
}
