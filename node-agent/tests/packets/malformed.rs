//! Packets that nobody should send: each leaves with a reason, and none does harm.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use std::cell::RefCell;
use weir_abi::reason::Reason;
use weir_datapath::testing::{samples, tcp};

use crate::bed::{Family, Scene, Seen, TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT};
use crate::kernel_bed::in_bed;

/// The shortest test packets that the kernel takes (5.10 to 6.18): a byte behind the Ethernet header, and of IPv4
/// and IPv6 their headers. Shorter ones are for the tests of the parser on the host.
fn shortest(packet: &[u8]) -> usize {
    match packet[12..14] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 15,
    }
}

#[test]
fn a_packet_that_ends_too_soon_is_truncated() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for (family, headers) in [(Family::V4, 14 + 20 + 20), (Family::V6, 14 + 40 + 20)] {
            let whole = tcp(family.a(), family.b(), 4_000, 80, 2).bytes();
            for length in shortest(&whole)..headers {
                let seen = scene.sent_by_a(&whole[..length]);
                assert_eq!(seen.action, TC_ACT_SHOT, "{length} bytes: {seen:?}");
                assert_eq!(seen.reasons.values().sum::<u64>(), 1, "{length} bytes: {seen:?}");
                let reason = *seen.reasons.keys().next().unwrap();
                assert!(
                    [Reason::Truncated, Reason::Malformed].contains(&reason),
                    "{length} bytes: {reason:?}"
                );
                assert_eq!(seen, Seen::dropped(&whole[..length], reason));
            }
        }
    });
}

#[derive(Debug, Clone)]
struct Damaged {
    packet: Vec<u8>,
    program: &'static str,
    /// 0 for A, 1 for B, 2 for neither.
    interface: u8,
}

fn damaged() -> impl Strategy<Value = Damaged> {
    let samples: Vec<Vec<u8>> = samples().into_iter().map(|(_, packet)| packet).collect();
    let change = (any::<Index>(), any::<u8>());
    let packet = (
        select(samples),
        proptest::collection::vec(change, 0..4),
        any::<Option<Index>>(),
    )
        .prop_map(|(mut packet, changes, cut)| {
            for (place, byte) in changes {
                // The headers are where it hurts.
                let end = packet.len().min(120);
                let place = place.index(end);
                packet[place] = byte;
            }
            if let Some(cut) = cut {
                packet.truncate(15 + cut.index(packet.len() - 14));
            }
            packet
        });
    let noise = proptest::collection::vec(any::<u8>(), 15..200);
    let headed =
        (select(vec![[0x08u8, 0x00], [0x86, 0xdd]]), noise.clone()).prop_map(|(kind, mut packet)| {
            packet[12..14].copy_from_slice(&kind);
            packet
        });
    let packet = prop_oneof![6 => packet, 1 => noise, 2 => headed];
    let packet = packet.prop_map(|mut packet| {
        packet.resize(packet.len().max(shortest(&packet)), 0);
        packet
    });
    (packet, select(vec!["from_pod", "to_pod", "from_wire"]), 0u8..3).prop_map(
        |(packet, program, interface)| Damaged {
            packet,
            program,
            interface,
        },
    )
}

/// One reason, never that of a fault of ours, and an action that goes with it.
#[test]
fn any_packet_leaves_with_a_reason() {
    in_bed(|bed| {
        let scene = RefCell::new(Scene::new(bed));
        let config = ProptestConfig {
            cases: 2_000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
                "proptest-regressions/malformed.txt",
            ))),
            ..ProptestConfig::default()
        };
        TestRunner::new(config)
            .run(
                &damaged(),
                |Damaged {
                     packet,
                     program,
                     interface,
                 }| {
                    let mut scene = scene.borrow_mut();
                    let ifindex = [scene.a, scene.b, scene.other][usize::from(interface)];
                    let seen = scene.run(program, ifindex, &packet);
                    prop_assert_eq!(seen.reasons.values().sum::<u64>(), 1, "{:?}", &seen);
                    let reason = *seen.reasons.keys().next().expect("one");
                    prop_assert!(
                        reason != Reason::Internal && reason != Reason::RewriteFailed,
                        "{:?}",
                        &seen
                    );
                    let forward = [TC_ACT_OK, TC_ACT_REDIRECT].contains(&seen.action);
                    prop_assert_eq!(reason.is_forward(), forward, "{:?}", &seen);
                    prop_assert!(forward || seen.action == TC_ACT_SHOT, "{:?}", &seen);
                    prop_assert_eq!(seen.packet.len(), packet.len());
                    prop_assert_eq!(&seen.packet[12..], &packet[12..], "nothing is translated");
                    Ok(())
                },
            )
            .unwrap_or_else(|error| panic!("{error}"));
    });
}
