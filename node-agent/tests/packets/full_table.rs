//! A full flow table: what policy allows goes on, what it denies does not.

use weir_abi::policy::{ANY_PEER, INGRESS, PolicyKey, side};
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{tcp, udp};

use crate::bed::{ALLOWED, DENIED, FAMILIES, Family, Scene, Seen, TC_ACT_SHOT, rule, serve};
use crate::kernel_bed::{Bed, CAPACITIES, in_bed};
use weir_agent::kernel::Capacities;

const FLOWS: u32 = 8;

/// Tables without room for one more connection.
fn full(bed: &Bed) -> Scene {
    let mut scene = Scene::sized(
        bed,
        Capacities {
            flows: FLOWS,
            ..CAPACITIES
        },
    );
    for family in FAMILIES {
        let mut refused = 0;
        for port in 1_000..1_100 {
            let seen = scene.sent_by_a(&udp(family.a(), family.b(), port, 53).bytes());
            assert_eq!(seen.reasons, [(Reason::Allowed, 1)].into());
            refused += i64::from(seen.flows == 0);
        }
        assert!(refused >= 100 - 2 * i64::from(FLOWS), "{refused} of 100");
    }
    scene
}

#[test]
fn lets_pass_what_policy_allows_and_nothing_else() {
    in_bed(|bed| {
        let mut scene = full(bed);
        assert_ne!(scene.kernel.overflow().unwrap(), 0);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let ask = tcp(a, b, 4_000, 80, tcp_flags::SYN).bytes();
            for _ in 0..2 {
                let seen = scene.sent_by_a(&ask);
                let expected = scene.handed_to_b(&ask, Reason::Allowed);
                let expected = expected.rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)]);
                assert_eq!(
                    Seen {
                        records: Vec::new(),
                        ..seen
                    },
                    expected
                );
            }
            let denied = tcp(a, family.remote(), 4_000, 80, tcp_flags::SYN).bytes();
            let seen = scene.sent_by_a(&denied);
            let expected = Seen::dropped(&denied, Reason::Isolated).rules(&[(rule::A_ISOLATED, DENIED)]);
            assert_eq!(
                Seen {
                    records: Vec::new(),
                    ..seen
                },
                expected
            );
        }
    });
}

/// A is isolated in both directions, so that nothing but the connection that it opened lets an answer in.
#[test]
fn knows_an_answer_when_it_sees_one() {
    in_bed(|bed| {
        let mut scene = full(bed);
        scene.change(|contents| {
            let any = |set| PolicyKey {
                side: side(set, INGRESS),
                peer: ANY_PEER,
            };
            let isolated = contents.policy[&any(2)];
            contents.policy.insert(any(1), isolated);
        });
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            // The answer to what policy allows A to ask.
            let answer = tcp(b, a, 80, 4_000, tcp_flags::SYN | tcp_flags::ACK).bytes();
            assert_eq!(
                scene.sent_by_b(&answer),
                scene.handed_to_a(&answer, Reason::Reply)
            );
            let answer = udp(b, a, 53, 4_000).bytes();
            assert_eq!(
                scene.sent_by_b(&answer),
                scene.handed_to_a(&answer, Reason::Reply)
            );
            // What opens a connection is none.
            let open = tcp(b, a, 4_000, 80, tcp_flags::SYN).bytes();
            assert_eq!(scene.sent_by_b(&open).reasons, [(Reason::Isolated, 1)].into());
            // Nor is what answers something that A may not ask, or what it may not be asked.
            let remote = family.remote();
            let denied = [
                tcp(remote, a, 80, 4_000, tcp_flags::ACK).bytes(),
                udp(remote, a, 53, 4_000).bytes(),
            ];
            for packet in denied {
                let seen = scene.run("to_pod", scene.a, &packet);
                assert_eq!(
                    (seen.action, seen.reasons),
                    (TC_ACT_SHOT, [(Reason::Isolated, 1)].into())
                );
            }
            let denied = [
                tcp(a, remote, 4_000, 80, tcp_flags::ACK).bytes(),
                udp(a, remote, 4_000, 53).bytes(),
            ];
            for packet in denied {
                let seen = scene.sent_by_a(&packet);
                let expected = Seen::dropped(&packet, Reason::Isolated).rules(&[(rule::A_ISOLATED, DENIED)]);
                assert_eq!(
                    Seen {
                        records: Vec::new(),
                        ..seen
                    },
                    expected
                );
            }
        }
    });
}

/// Where nothing overflowed, an answer has an entry, and what has none is no answer.
#[test]
fn is_no_excuse_before_it_is_full() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        scene.change(|contents| {
            let any = |set| PolicyKey {
                side: side(set, INGRESS),
                peer: ANY_PEER,
            };
            let isolated = contents.policy[&any(2)];
            contents.policy.insert(any(1), isolated);
        });
        for family in FAMILIES {
            let answer = udp(family.b(), family.a(), 53, 4_000).bytes();
            assert_eq!(scene.sent_by_b(&answer).reasons, [(Reason::Isolated, 1)].into());
        }
    });
}

/// A translated connection cannot do without its entry, and says so.
#[test]
fn refuses_a_service_with_a_word() {
    in_bed(|bed| {
        let mut scene = full(bed);
        scene.change(|contents| {
            for family in FAMILIES {
                serve(
                    contents,
                    family.service(),
                    80,
                    protocol::TCP,
                    &[(family.b(), 8_080)],
                );
            }
        });
        for family in FAMILIES {
            let ask = tcp(family.a(), family.service(), 4_000, 80, tcp_flags::SYN).bytes();
            assert_eq!(scene.sent_by_a(&ask), Seen::dropped(&ask, Reason::FlowTableFull));
        }
    });
}

/// Entries that are in stay in.
#[test]
fn keeps_the_connections_that_it_has() {
    in_bed(|bed| {
        let mut scene = full(bed);
        let mut kept = 0;
        for port in 1_000..1_100 {
            let (a, b) = (Family::V4.a(), Family::V4.b());
            let seen = scene.sent_by_b(&udp(b, a, 53, port).bytes());
            kept += u32::from(seen.reasons == [(Reason::Established, 1)].into());
        }
        assert!(kept >= FLOWS, "{kept}");
    });
}
