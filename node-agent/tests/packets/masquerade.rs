//! Pods speak to the outside as their node, and hear the answers as themselves.

use std::net::IpAddr;

use weir_abi::address::{Address, CidrKey};
use weir_abi::config::{Masquerade, NON_MASQUERADE};
use weir_abi::event::{FlowEvent, event_flags, side_verdict};
use weir_abi::policy::{CIDR_PEER, EGRESS};
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{Builder, echo, echo_reply, icmp_error, sctp, tcp, udp};

use crate::bed::{ALLOWED, FAMILIES, Family, Scene, Seen, accept, by, deny, record, rule, serve};
use crate::errors::{about, unreachable};
use crate::kernel_bed::{Bed, in_bed};

type Build = fn(IpAddr, IpAddr, u16, u16) -> Builder;

const ACK: u8 = tcp_flags::ACK;
const SYN: u8 = tcp_flags::SYN;

/// The first of the ports.
const FIRST: u16 = 61_000;

/// The node speaks for its pods, with so many ports.
fn scene(bed: &Bed, ports: u16) -> Scene {
    let mut scene = Scene::new(bed);
    scene.change(|contents| {
        let value = Masquerade {
            v4: Address::from_ip(Family::V4.node()),
            v6: Address::from_ip(Family::V6.node()),
            first_port: FIRST,
            ports,
            padding: 0,
        };
        contents.masquerade = [(0, value)].into();
    });
    scene
}

fn left(packet: &[u8], protocol: u8, detail: u8, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Seen {
    let out = FlowEvent {
        detail,
        flags: event_flags::LOG_EGRESS,
        egress: by(side_verdict::ALLOW, rule::A_TO_STRANGER),
        ..record(Reason::Allowed, protocol, source, destination)
    };
    Seen::passed(packet, Reason::Allowed)
        .flows(2)
        .record(out)
        .rules(&[(rule::A_TO_STRANGER, ALLOWED)])
}

fn from_wire(scene: &mut Scene, packet: &[u8]) -> Seen {
    scene.run("from_wire", scene.other, packet)
}

#[test]
fn out_and_back() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let kinds: [(u8, u8, Build); 3] = [
                (protocol::TCP, SYN, |from, to, source, destination| {
                    tcp(from, to, source, destination, SYN)
                }),
                (protocol::UDP, 0, |from, to, source, destination| {
                    udp(from, to, source, destination).payload(b"who?!")
                }),
                // The identifier is the port at both ends.
                (
                    if family == Family::V4 { 1 } else { 58 },
                    if family == Family::V4 { 8 } else { 128 },
                    { |from, to, source, _| echo(from, to, source).payload(b"there?") },
                ),
            ];
            for (protocol, detail, first) in kinds {
                let is_echo = protocol != protocol::TCP && protocol != protocol::UDP;
                let at = if is_echo { 4_000 } else { 443 };
                let answer = |to: IpAddr, port: u16| match protocol {
                    protocol::TCP => tcp(stranger, to, 443, port, SYN | ACK).bytes(),
                    protocol::UDP => udp(stranger, to, 443, port).payload(b"I!").bytes(),
                    _ => echo_reply(stranger, to, port).payload(b"there?").bytes(),
                };
                assert_eq!(
                    scene.sent_by_a(&first(a, stranger, 4_000, 443).bytes()),
                    left(
                        &first(node, stranger, FIRST, 443).bytes(),
                        protocol,
                        detail,
                        (a, 4_000),
                        (stranger, at)
                    )
                );
                for _ in 0..2 {
                    assert_eq!(
                        from_wire(&mut scene, &answer(node, FIRST)),
                        scene.handed_to_a(&answer(a, 4_000), Reason::Established)
                    );
                }
                if protocol != protocol::TCP {
                    assert_eq!(
                        scene.sent_by_a(&first(a, stranger, 4_000, 443).bytes()),
                        Seen::passed(&first(node, stranger, FIRST, 443).bytes(), Reason::Established)
                    );
                }
            }
        }
    });
}

/// Pods and nodes, what an administrator names, and a family without an address: everybody hears who it is.
#[test]
fn not_within_the_cluster() {
    in_bed(|bed| {
        let mut scene = scene(bed, 100);
        scene.change(|contents| {
            for set in [1, 2] {
                contents.policy.retain(|key, _| key.side >> 1 != set);
            }
        });
        for family in FAMILIES {
            let (a, unknown) = (family.a(), family.unknown());
            // A pod of another node, and this node.
            for (to, reason) in [
                (family.remote(), Reason::DefaultAllowed),
                (family.node(), Reason::LocalNode),
            ] {
                let packet = udp(a, to, 4_000, 53).bytes();
                let seen = scene.sent_by_a(&packet);
                assert_eq!((seen.packet, seen.reasons), (packet, [(reason, 1)].into()));
            }
            let out = |source: IpAddr, port| udp(source, unknown, port, 53).bytes();
            let seen = scene.sent_by_a(&out(a, 4_001));
            let port = source_port(&seen.packet, family);
            assert_eq!(seen.packet, out(family.node(), port));
            let (base, prefix_len) = if family == Family::V4 {
                ("198.51.100.0", 120)
            } else {
                ("2001:dead::", 32)
            };
            let key = CidrKey {
                prefix_len,
                address: Address::from_ip(base.parse().expect("an address")).0,
            };
            scene.change(|contents| {
                contents.non_masquerade.insert(key, NON_MASQUERADE);
            });
            // Who spoke as the node goes on to.
            assert_eq!(scene.sent_by_a(&out(a, 4_001)).packet, out(family.node(), port));
            assert_eq!(scene.sent_by_a(&out(a, 4_002)).packet, out(a, 4_002));
            scene.change(|contents| {
                contents.non_masquerade.clear();
                let settings = contents.masquerade.get_mut(&0).expect("settings");
                (settings.v4, settings.v6) = match family {
                    Family::V4 => (Address::default(), settings.v6),
                    Family::V6 => (settings.v4, Address::default()),
                };
            });
            assert_eq!(scene.sent_by_a(&out(a, 4_003)).packet, out(a, 4_003));
        }
    });
}

fn source_port(packet: &[u8], family: Family) -> u16 {
    let at = if family == Family::V4 { 14 + 20 } else { 14 + 40 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Each connection to a destination has a port of its own as long as there are some, and then a reason. One that is
/// over gives its port back.
#[test]
fn ports_are_taken_and_given_back() {
    in_bed(|bed| {
        const PORTS: u16 = 4;
        let mut scene = scene(bed, PORTS);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let ask = |port| tcp(a, stranger, port, 443, SYN).bytes();
            let mut ports = Vec::new();
            for port in 1_000..1_000 + PORTS {
                let seen = scene.sent_by_a(&ask(port));
                assert_eq!(seen.reasons, [(Reason::Allowed, 1)].into());
                ports.push(source_port(&seen.packet, family));
            }
            let first = ports[0];
            ports.sort_unstable();
            assert_eq!(ports, (FIRST..FIRST + PORTS).collect::<Vec<_>>());
            let packet = ask(2_000);
            assert_eq!(
                scene.sent_by_a(&packet),
                Seen::dropped(&packet, Reason::PortsExhausted)
            );
            // To another destination they are all free.
            let other = tcp(a, stranger, 2_000, 444, SYN).bytes();
            assert_eq!(scene.sent_by_a(&other).reasons, [(Reason::Allowed, 1)].into());

            let reset = tcp(stranger, node, 443, first, tcp_flags::RST | ACK).bytes();
            let seen = from_wire(&mut scene, &reset);
            assert_eq!(
                (seen.reasons, seen.flows),
                ([(Reason::Established, 1)].into(), -1)
            );
            let seen = scene.sent_by_a(&packet);
            assert_eq!(seen.packet, tcp(node, stranger, first, 443, SYN).bytes());
        }
    });
}

/// A client may use its port again at once.
#[test]
fn a_connection_that_is_opened_again_has_its_port() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let ask = tcp(a, stranger, 4_000, 443, SYN).bytes();
            scene.sent_by_a(&ask);
            from_wire(&mut scene, &tcp(stranger, node, 443, FIRST, SYN | ACK).bytes());
            scene.sent_by_a(&tcp(a, stranger, 4_000, 443, tcp_flags::RST).bytes());
            let seen = scene.sent_by_a(&ask);
            assert_eq!(
                (seen.packet, seen.reasons),
                (
                    tcp(node, stranger, FIRST, 443, SYN).bytes(),
                    [(Reason::Allowed, 1)].into()
                )
            );
        }
    });
}

/// Ports of SCTP stay, for want of a checksum that could be mended: two pods' same port to one destination is one too
/// many.
#[test]
fn without_ports_to_choose_from_only_the_address_changes() {
    in_bed(|bed| {
        let mut scene = scene(bed, 100);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let seen = scene.sent_by_a(&sctp(a, stranger, 4_000, 99).bytes());
            assert_eq!(seen.packet, sctp(node, stranger, 4_000, 99).bytes());
            let answer = from_wire(&mut scene, &sctp(stranger, node, 99, 4_000).bytes());
            assert_eq!(
                answer,
                scene.handed_to_a(&sctp(stranger, a, 99, 4_000).bytes(), Reason::Established)
            );
            scene.change(|contents| {
                contents.policy.retain(|key, _| key.side >> 1 != 2);
            });
            let packet = sctp(family.b(), stranger, 4_000, 99).bytes();
            assert_eq!(
                scene.sent_by_b(&packet),
                Seen::dropped(&packet, Reason::PortsExhausted)
            );
        }
    });
}

#[test]
fn fragments_follow_their_first() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let parts = |whole: Builder| {
                let whole = whole.payload(&[7; 64]);
                [
                    whole.clone().fragment(0x1234, 0..32).bytes(),
                    whole.clone().fragment(0x1234, 32..56).bytes(),
                    whole.last_fragment(0x1234, 56..).bytes(),
                ]
            };
            let out = parts(udp(a, stranger, 4_000, 53)).map(|part| scene.sent_by_a(&part).packet);
            assert_eq!(out, parts(udp(node, stranger, FIRST, 53)));
            let sent = parts(udp(stranger, node, 53, FIRST));
            // Before its first, nobody knows whose it is: the node may.
            assert_eq!(
                from_wire(&mut scene, &sent[1]),
                Seen::passed(&sent[1], Reason::NotForPod)
            );
            for (part, expected) in sent.iter().zip(parts(udp(stranger, a, 53, 4_000))) {
                assert_eq!(
                    from_wire(&mut scene, part),
                    scene.handed_to_a(&expected, Reason::Established)
                );
            }
        }
    });
}

/// A router, and the destination itself, tell the pod of what it sent.
#[test]
fn errors_find_the_pod() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let (kind, code) = unreachable(family);
            let asks: [fn(IpAddr, IpAddr, u16) -> Builder; 3] = [
                |from, to, port| udp(from, to, port, 53).payload(b"who?!"),
                |from, to, port| tcp(from, to, port, 443, SYN),
                |from, to, identifier| echo(from, to, identifier).payload(b"there?"),
            ];
            for ask in asks {
                let (sent, left) = (
                    ask(a, stranger, 4_000).bytes(),
                    ask(node, stranger, FIRST).bytes(),
                );
                assert_eq!(scene.sent_by_a(&sent).packet, left);
                for sender in [family.unknown(), stranger] {
                    let error = icmp_error(sender, node, kind, code, &left).bytes();
                    assert_eq!(
                        from_wire(&mut scene, &error),
                        scene.handed_to_a(&about(sender, a, kind, code, &sent, &left), Reason::RelatedError)
                    );
                }
            }
            // And the pod tells of an answer, which it has no use for.
            let (arrived, answer) = (
                udp(stranger, a, 53, 4_000).payload(b"I!").bytes(),
                udp(stranger, node, 53, FIRST).payload(b"I!").bytes(),
            );
            assert_eq!(
                scene.sent_by_a(&icmp_error(a, stranger, kind, code, &arrived).bytes()),
                Seen::passed(
                    &about(node, stranger, kind, code, &answer, &arrived),
                    Reason::RelatedError
                )
            );
        }
    });
}

/// What the node says and hears for itself.
#[test]
fn the_nodes_own_traffic_is_its_own() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let (kind, code) = unreachable(family);
            scene.sent_by_a(&udp(a, stranger, 4_000, 53).bytes());
            let own = udp(node, stranger, 40_000, 53).bytes();
            let packets = [
                tcp(stranger, node, 443, FIRST, ACK).bytes(),
                udp(stranger, node, 53, 40_000).bytes(),
                // Another server's answer is not the one that the pod waits for.
                udp(family.unknown(), node, 53, FIRST).bytes(),
                udp(stranger, node, 54, FIRST).bytes(),
                echo(stranger, node, 7).bytes(),
                echo_reply(stranger, node, 7).bytes(),
                icmp_error(stranger, node, kind, code, &own).bytes(),
                udp(stranger, node, 53, 40_000)
                    .payload(&[0; 64])
                    .last_fragment(3, 32..)
                    .bytes(),
                // Nobody outside is a pod of this node.
                udp(a, node, 4_000, FIRST).bytes(),
            ];
            for packet in packets {
                assert_eq!(
                    from_wire(&mut scene, &packet),
                    Seen::passed(&packet, Reason::NotForPod)
                );
            }
        }
    });
}

/// A change of policy is felt by the next packet, whichever way it goes.
#[test]
fn policy_holds_for_connections_that_live() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger) = (family.a(), family.node(), family.stranger());
            let strangers = CIDR_PEER | if family == Family::V4 { 41 } else { 61 };
            let ask = udp(a, stranger, 4_000, 53).bytes();
            let answer = udp(stranger, node, 53, FIRST).bytes();
            scene.sent_by_a(&ask);
            scene.decide(EGRESS, strangers, deny(rule::A_ISOLATED));
            let seen = from_wire(&mut scene, &answer);
            assert_eq!(
                (seen.packet, seen.reasons),
                (answer.clone(), [(Reason::Isolated, 1)].into())
            );
            let seen = scene.sent_by_a(&ask);
            assert_eq!(
                (seen.packet, seen.reasons),
                (ask.clone(), [(Reason::Isolated, 1)].into())
            );
            // No Service was asked for.
            assert_eq!(seen.records[0].service, Address::default());
            scene.decide(EGRESS, strangers, accept(rule::A_TO_STRANGER));
            assert_eq!(
                from_wire(&mut scene, &answer),
                scene.handed_to_a(&udp(stranger, a, 53, 4_000).bytes(), Reason::Established)
            );
            assert_eq!(
                scene.sent_by_a(&ask),
                Seen::passed(&udp(node, stranger, FIRST, 53).bytes(), Reason::Established)
            );
        }
    });
}

/// Both ends change: a Service whose backend is outside.
#[test]
fn a_service_outside_hears_the_node() {
    in_bed(|bed| {
        let mut scene = scene(bed, 1);
        for family in FAMILIES {
            let (a, node, stranger, service) =
                (family.a(), family.node(), family.stranger(), family.service());
            scene.change(|contents| serve(contents, service, 443, protocol::TCP, &[(stranger, 6_443)]));
            for _ in 0..2 {
                assert_eq!(
                    scene.sent_by_a(&tcp(a, service, 4_000, 443, SYN).bytes()).packet,
                    tcp(node, stranger, FIRST, 6_443, SYN).bytes()
                );
            }
            assert_eq!(
                from_wire(&mut scene, &tcp(stranger, node, 6_443, FIRST, SYN | ACK).bytes()),
                scene.handed_to_a(
                    &tcp(service, a, 443, 4_000, SYN | ACK).bytes(),
                    Reason::Established
                )
            );
        }
    });
}
