//! Connections that policy allows, from their first packet to their last.

use weir_abi::event::{FlowEvent, event_flags, side_verdict};
use weir_abi::policy::EGRESS;
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{Builder, echo, echo_reply, icmp, sctp, tcp, udp};

use crate::bed::{
    ALLOWED, DENIED, FAMILIES, Family, Scene, Seen, a_to_b, accept, by, deny_by_admin, identity, record, rule,
};
use crate::kernel_bed::in_bed;

const ACK: u8 = tcp_flags::ACK;
const SYN: u8 = tcp_flags::SYN;
const FIN: u8 = tcp_flags::FIN;
const RST: u8 = tcp_flags::RST;

/// The two packets by which each protocol's connections begin, and the record of the first.
struct Exchange {
    ask: Builder,
    answer: Builder,
    record: FlowEvent,
}

fn exchanges(family: Family) -> Vec<Exchange> {
    let (a, b) = (family.a(), family.b());
    let (echo_protocol, echo_type) = if family == Family::V4 {
        (protocol::ICMP, 8)
    } else {
        (protocol::ICMPV6, 128)
    };
    vec![
        Exchange {
            ask: tcp(a, b, 4_000, 80, SYN),
            answer: tcp(b, a, 80, 4_000, SYN | ACK),
            record: a_to_b(protocol::TCP, SYN, 4_000, 80, family),
        },
        Exchange {
            ask: udp(a, b, 4_000, 53).payload(b"who?"),
            answer: udp(b, a, 53, 4_000).payload(b"me"),
            record: a_to_b(protocol::UDP, 0, 4_000, 53, family),
        },
        Exchange {
            ask: sctp(a, b, 4_000, 99),
            answer: sctp(b, a, 99, 4_000),
            record: a_to_b(protocol::SCTP, 0, 4_000, 99, family),
        },
        Exchange {
            ask: echo(a, b, 7_777),
            answer: echo_reply(b, a, 7_777),
            record: a_to_b(echo_protocol, echo_type, 7_777, 7_777, family),
        },
    ]
}

#[test]
fn between_two_pods_of_the_node() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            for Exchange { ask, answer, record } in exchanges(family) {
                let (ask, answer) = (ask.bytes(), answer.bytes());
                let first = scene.handed_to_b(&ask, Reason::Allowed).flows(1).record(record);
                let first = first.rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)]);
                assert_eq!(scene.sent_by_a(&ask), first);
                assert_eq!(
                    scene.sent_by_b(&answer),
                    scene.handed_to_a(&answer, Reason::Established)
                );
                assert_eq!(scene.sent_by_a(&ask[..]).reasons.len(), 1);
                assert_eq!(
                    scene.sent_by_b(&answer),
                    scene.handed_to_a(&answer, Reason::Established)
                );
            }
        }
    });
}

/// Options and extension headers take the long way round, and come to the same.
#[test]
fn the_slow_path_says_of_an_established_packet_what_the_fast_one_says() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let unusual = |packet: Builder| match family {
                Family::V4 => packet.options(3),
                Family::V6 => packet.extension(weir_datapath::testing::Extension::Destination(1)),
            };
            scene.sent_by_a(&tcp(a, b, 4_000, 80, SYN).bytes());
            scene.sent_by_b(&tcp(b, a, 80, 4_000, SYN | ACK).bytes());
            for _ in 0..2 {
                let data = tcp(a, b, 4_000, 80, ACK).payload(b"data");
                for packet in [data.bytes(), unusual(data).bytes()] {
                    assert_eq!(
                        scene.sent_by_a(&packet),
                        scene.handed_to_b(&packet, Reason::Established)
                    );
                }
                let data = tcp(b, a, 80, 4_000, ACK).payload(b"more");
                for packet in [data.bytes(), unusual(data).bytes()] {
                    assert_eq!(
                        scene.sent_by_b(&packet),
                        scene.handed_to_a(&packet, Reason::Established)
                    );
                }
            }
        }
    });
}

#[test]
fn with_somebody_outside() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b, stranger) = (family.a(), family.b(), family.stranger());
            let ask = tcp(a, stranger, 4_000, 443, SYN).bytes();
            let out = FlowEvent {
                detail: SYN,
                flags: event_flags::LOG_EGRESS,
                egress: by(side_verdict::ALLOW, rule::A_TO_STRANGER),
                ..record(Reason::Allowed, protocol::TCP, (a, 4_000), (stranger, 443))
            };
            let first = Seen::passed(&ask, Reason::Allowed).flows(1).record(out);
            assert_eq!(
                scene.sent_by_a(&ask),
                first.rules(&[(rule::A_TO_STRANGER, ALLOWED)])
            );
            let answer = tcp(stranger, a, 443, 4_000, SYN | ACK).bytes();
            assert_eq!(
                scene.run("to_pod", scene.a, &answer),
                Seen::passed(&answer, Reason::Established)
            );
            // Or straight off the wire.
            assert_eq!(
                scene.run("from_wire", scene.other, &answer),
                scene.handed_to_a(&answer, Reason::Established)
            );
            let data = tcp(a, stranger, 4_000, 443, ACK).bytes();
            assert_eq!(scene.sent_by_a(&data), Seen::passed(&data, Reason::Established));

            let ask = udp(stranger, b, 5_000, 53).bytes();
            let first = FlowEvent {
                flags: event_flags::LOG_INGRESS,
                ingress: by(side_verdict::ALLOW, rule::B_FROM_STRANGER),
                ..record(Reason::Allowed, protocol::UDP, (stranger, 5_000), (b, 53))
            };
            assert_eq!(
                scene.run("from_wire", scene.other, &ask),
                scene
                    .handed_to_b(&ask, Reason::Allowed)
                    .flows(1)
                    .rules(&[(rule::B_FROM_STRANGER, ALLOWED)])
                    .record(first)
            );
            let answer = udp(b, stranger, 53, 5_000).bytes();
            assert_eq!(
                scene.sent_by_b(&answer),
                Seen::passed(&answer, Reason::Established)
            );
        }
    });
}

/// What no rule restricts is allowed, and nobody hears of it.
#[test]
fn that_nothing_restricts() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let ask = tcp(family.b(), family.a(), 4_000, 80, SYN).bytes();
            let first = scene.handed_to_a(&ask, Reason::DefaultAllowed).flows(1);
            assert_eq!(scene.sent_by_b(&ask), first);
        }
    });
}

#[test]
fn that_policy_denies() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            for (to, port) in [(family.remote(), 80), (family.unknown(), 81)] {
                let ask = tcp(a, to, 4_000, port, SYN).bytes();
                let denied = FlowEvent {
                    detail: SYN,
                    flags: event_flags::LOG_EGRESS,
                    egress: by(side_verdict::DENY, rule::A_ISOLATED),
                    ..record(Reason::Isolated, protocol::TCP, (a, 4_000), (to, port))
                };
                let seen = Seen::dropped(&ask, Reason::Isolated).record(denied);
                let seen = seen.rules(&[(rule::A_ISOLATED, DENIED)]);
                assert_eq!(scene.sent_by_a(&ask), seen);
                assert_eq!(scene.sent_by_a(&ask), seen, "every packet");
            }
            let from = family.remote();
            let ask = udp(from, b, 4_000, 53).bytes();
            let denied = FlowEvent {
                flags: event_flags::LOG_INGRESS,
                ingress: by(side_verdict::DENY, rule::B_ISOLATED),
                ..record(Reason::Isolated, protocol::UDP, (from, 4_000), (b, 53))
            };
            let seen = Seen::dropped(&ask, Reason::Isolated).record(denied);
            let seen = seen.rules(&[(rule::B_ISOLATED, DENIED)]);
            for (program, ifindex) in [("to_pod", scene.b), ("from_wire", scene.other)] {
                assert_eq!(scene.run(program, ifindex, &ask), seen);
            }
        }
    });
}

#[test]
fn that_end_leave_nothing() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let from_a = |flags| tcp(a, b, 4_000, 80, flags).bytes();
            let from_b = |flags| tcp(b, a, 80, 4_000, flags).bytes();
            assert_eq!(scene.sent_by_a(&from_a(SYN)).flows, 1);
            let steps = [
                (from_b(SYN | ACK), 0),
                (from_a(ACK), 0),
                (from_a(FIN | ACK), 0),
                (from_b(ACK), 0),
                (from_b(FIN | ACK), 0),
                // The last acknowledgement.
                (from_a(ACK), -1),
            ];
            for (packet, flows) in steps {
                let is_from_a = packet == from_a(ACK) || packet == from_a(FIN | ACK);
                let (seen, expected) = if is_from_a {
                    (
                        scene.sent_by_a(&packet),
                        scene.handed_to_b(&packet, Reason::Established),
                    )
                } else {
                    (
                        scene.sent_by_b(&packet),
                        scene.handed_to_a(&packet, Reason::Established),
                    )
                };
                assert_eq!(seen, expected.flows(flows));
            }
            // A reset from either end.
            for by_a in [true, false] {
                scene.sent_by_a(&from_a(SYN));
                scene.sent_by_b(&from_b(SYN | ACK));
                let (seen, expected) = if by_a {
                    let reset = from_a(RST);
                    (
                        scene.sent_by_a(&reset),
                        scene.handed_to_b(&reset, Reason::Established),
                    )
                } else {
                    let reset = from_b(RST | ACK);
                    (
                        scene.sent_by_b(&reset),
                        scene.handed_to_a(&reset, Reason::Established),
                    )
                };
                assert_eq!(seen, expected.flows(-1));
            }
        }
    });
}

/// The same ports again, sooner than the old entry goes: a connection of its own, counted and logged.
#[test]
fn that_are_opened_again_are_new_ones() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let syn = tcp(a, b, 4_000, 80, SYN).bytes();
            let opened = scene
                .handed_to_b(&syn, Reason::Allowed)
                .rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)])
                .record(a_to_b(protocol::TCP, SYN, 4_000, 80, family));
            assert_eq!(scene.sent_by_a(&syn), opened.clone().flows(1));
            assert_eq!(
                scene.sent_by_a(&syn),
                scene.handed_to_b(&syn, Reason::Established),
                "sent again"
            );
            scene.sent_by_b(&tcp(b, a, 80, 4_000, SYN | ACK).bytes());
            assert_eq!(scene.sent_by_a(&syn), opened);
        }
    });
}

/// A connection under a changed policy is judged again: cut in both directions where policy denies it, and goes on
/// where policy allows it again.
#[test]
fn that_live_through_a_change_of_policy() {
    in_bed(|bed| {
        const ADMIN: u32 = 40;
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            scene.sent_by_a(&tcp(a, b, 4_000, 80, SYN).bytes());
            scene.sent_by_b(&tcp(b, a, 80, 4_000, SYN | ACK).bytes());
            let ask = tcp(a, b, 4_000, 80, ACK).payload(b"ask").bytes();
            let answer = tcp(b, a, 80, 4_000, ACK).payload(b"answer").bytes();

            scene.decide(EGRESS, identity::B, deny_by_admin(ADMIN));
            for _ in 0..2 {
                let denied = FlowEvent {
                    detail: ACK,
                    flags: event_flags::LOG_EGRESS,
                    egress: by(side_verdict::DENY, ADMIN),
                    ..record(Reason::RuleDenied, protocol::TCP, (a, 4_000), (b, 80))
                };
                let seen = |packet: &[u8]| {
                    let seen = Seen::dropped(packet, Reason::RuleDenied).record(denied);
                    seen.rules(&[(ADMIN, DENIED)])
                };
                assert_eq!(scene.sent_by_a(&ask), seen(&ask));
                assert_eq!(scene.sent_by_b(&answer), seen(&answer));
            }

            // Another rule that allows it is another cause, and the connection is no new one.
            scene.decide(EGRESS, identity::B, accept(rule::A_TO_B));
            assert_eq!(
                scene.sent_by_b(&answer),
                scene.handed_to_a(&answer, Reason::Established)
            );
            assert_eq!(
                scene.sent_by_a(&ask),
                scene.handed_to_b(&ask, Reason::Established)
            );
        }
    });
}

/// A TCP connection that is met in the middle is followed, and counted as none that was opened.
#[test]
fn that_are_met_in_the_middle() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let data = tcp(family.a(), family.b(), 4_000, 80, ACK)
                .payload(b"data")
                .bytes();
            assert_eq!(
                scene.sent_by_a(&data),
                scene.handed_to_b(&data, Reason::Allowed).flows(1)
            );
            assert_eq!(
                scene.sent_by_a(&data),
                scene.handed_to_b(&data, Reason::Established)
            );
            // What ends one leaves no entry.
            for flags in [FIN | ACK, RST] {
                let last = tcp(family.a(), family.b(), 4_001, 80, flags).bytes();
                assert_eq!(scene.sent_by_a(&last), scene.handed_to_b(&last, Reason::Allowed));
            }
        }
    });
}

/// Messages that have no identifier belong to no connection, but to the two ends and their protocol.
#[test]
fn of_protocols_without_ports() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let other = weir_datapath::testing::other(a, b, 47, b"a tunnel").bytes();
            let seen = scene.sent_by_a(&other);
            let expected = scene
                .handed_to_b(&other, Reason::Allowed)
                .flows(1)
                .rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)])
                .record(a_to_b(47, 0, 0, 0, family));
            assert_eq!(seen, expected);
            // RFC 792's timestamp, RFC 4620's node information query.
            let kind = if family == Family::V4 { 13 } else { 139 };
            let message = icmp(a, b, kind, 0, [0, 9, 0, 1]).payload(&[0; 12]).bytes();
            let seen = scene.sent_by_a(&message);
            assert_eq!(
                (seen.action, seen.flows, seen.records.len()),
                (expected.action, 1, 1),
                "{seen:?}"
            );
        }
    });
}
