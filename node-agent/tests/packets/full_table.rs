//! A full flow table: what policy allows goes on, what it denies does not.

use weir_abi::policy::{ANY_PEER, INGRESS, PolicyKey, side};
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{tcp, udp};

use crate::bed::{ALLOWED, DENIED, FAMILIES, Family, Scene, Seen, rule, serve};
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
            // Sent again, it belongs to the connection that is remembered elsewhere.
            assert_eq!(
                scene.sent_by_a(&ask),
                scene.handed_to_b(&ask, Reason::Established)
            );
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

/// A is isolated in both directions, so that nothing but the connection that it opened lets an answer in: what has no
/// room in the table is remembered all the same, and nothing passes for an answer that is none.
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
            for (ask, answer) in [
                (
                    tcp(a, b, 4_000, 80, tcp_flags::SYN),
                    tcp(b, a, 80, 4_000, tcp_flags::SYN | tcp_flags::ACK),
                ),
                (udp(a, b, 4_000, 53), udp(b, a, 53, 4_000)),
            ] {
                // Nobody asked yet.
                let early = scene.sent_by_b(&answer.bytes());
                assert_eq!(early.reasons, [(Reason::Isolated, 1)].into());
                let asked = scene.sent_by_a(&ask.bytes());
                assert_eq!(asked.reasons, [(Reason::Allowed, 1)].into());
                let answer = answer.bytes();
                assert_eq!(
                    scene.sent_by_b(&answer),
                    scene.handed_to_a(&answer, Reason::Established)
                );
            }
            // What opens a connection is no answer.
            let open = tcp(b, a, 4_000, 80, tcp_flags::SYN).bytes();
            assert_eq!(scene.sent_by_b(&open).reasons, [(Reason::Isolated, 1)].into());
        }
    });
}

/// A translated connection has both its entries, wherever there is room.
#[test]
fn leads_to_a_service_and_back() {
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
            let told = tcp(family.a(), family.b(), 4_000, 8_080, tcp_flags::SYN).bytes();
            let asked = scene.sent_by_a(&ask);
            assert_eq!(asked.packet, scene.handed_to_b(&told, Reason::Allowed).packet);
            let both = tcp_flags::SYN | tcp_flags::ACK;
            let answer = tcp(family.b(), family.a(), 8_080, 4_000, both).bytes();
            let told = tcp(family.service(), family.a(), 80, 4_000, both).bytes();
            let answered = scene.sent_by_b(&answer);
            assert_eq!(
                answered.packet,
                scene.handed_to_a(&told, Reason::Established).packet
            );
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
