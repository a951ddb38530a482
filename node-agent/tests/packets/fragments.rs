//! Fragments: what follows the first goes where the first went.

use weir_abi::event::FlowEvent;
use weir_abi::reason::Reason;
use weir_datapath::packet::protocol;
use weir_datapath::testing::udp;

use crate::bed::{ALLOWED, DENIED, FAMILIES, Scene, Seen, a_to_b, rule};
use crate::kernel_bed::in_bed;

#[test]
fn that_follow_their_first() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            let whole = udp(a, b, 4_000, 53).payload(&[7; 64]);
            let first = whole.clone().fragment(0x1234, 0..32).bytes();
            let middle = whole.clone().fragment(0x1234, 32..56).bytes();
            let last = whole.clone().last_fragment(0x1234, 56..).bytes();
            let opened = scene
                .handed_to_b(&first, Reason::Allowed)
                .flows(1)
                .rules(&[(rule::A_TO_B, ALLOWED), (rule::B_FROM_A, ALLOWED)])
                .record(a_to_b(protocol::UDP, 0, 4_000, 53, family));
            assert_eq!(scene.sent_by_a(&first), opened);
            for packet in [middle, last] {
                assert_eq!(
                    scene.sent_by_a(&packet),
                    scene.handed_to_b(&packet, Reason::Established)
                );
            }
            // One of another packet, whose first was not seen.
            let stray = whole.last_fragment(0x4321, 32..).bytes();
            assert_eq!(
                scene.sent_by_a(&stray),
                Seen::dropped(&stray, Reason::FragmentUnknown)
            );
        }
    });
}

/// The ports decide, which a later fragment has from its first: denied with it.
#[test]
fn of_a_packet_that_policy_denies() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let whole = udp(family.a(), family.remote(), 4_000, 53).payload(&[7; 64]);
            let mut records: Vec<FlowEvent> = Vec::new();
            for packet in [
                whole.clone().fragment(9, 0..32).bytes(),
                whole.last_fragment(9, 32..).bytes(),
            ] {
                let seen = scene.sent_by_a(&packet);
                assert_eq!(seen.records.len(), 1);
                records.extend(&seen.records);
                let expected = Seen::dropped(&packet, Reason::Isolated).rules(&[(rule::A_ISOLATED, DENIED)]);
                assert_eq!(
                    Seen {
                        records: Vec::new(),
                        ..seen
                    },
                    expected
                );
            }
            assert_eq!(records[0], records[1]);
            assert_eq!(records[0].destination_port, 53u16.to_be());
        }
    });
}
