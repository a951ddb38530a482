//! ICMP errors: those that belong to a connection pass, and no others.

use std::net::IpAddr;

use weir_abi::policy::{ANY_PEER, INGRESS, PolicyKey, side};
use weir_abi::reason::Reason;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{icmp_error, tcp, udp};

use crate::bed::{FAMILIES, Family, Scene, Seen};
use crate::kernel_bed::in_bed;

/// Destination unreachable, port unreachable.
pub fn unreachable(family: Family) -> (u8, u8) {
    if family == Family::V4 { (3, 3) } else { (1, 4) }
}

#[test]
fn about_a_connection_that_policy_allows() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b, stranger) = (family.a(), family.b(), family.stranger());
            let (kind, code) = unreachable(family);
            let ask = udp(a, b, 4_000, 53).payload(b"who?").bytes();
            let error = icmp_error(b, a, kind, code, &ask).bytes();
            // Policy allows the connection, with an entry or without.
            assert_eq!(
                scene.sent_by_b(&error),
                scene.handed_to_a(&error, Reason::RelatedError)
            );
            scene.sent_by_a(&ask);
            assert_eq!(
                scene.sent_by_b(&error),
                scene.handed_to_a(&error, Reason::RelatedError)
            );

            // A router on the way reports what happened to a packet of A's.
            let ask = tcp(a, stranger, 4_000, 443, tcp_flags::SYN).bytes();
            scene.sent_by_a(&ask);
            let error = icmp_error(family.unknown(), a, kind, code, &ask).bytes();
            assert_eq!(
                scene.run("to_pod", scene.a, &error),
                Seen::passed(&error, Reason::RelatedError)
            );
            assert_eq!(
                scene.run("from_wire", scene.other, &error),
                scene.handed_to_a(&error, Reason::RelatedError)
            );

            // About an answer, too.
            let ask = udp(stranger, b, 5_000, 53).bytes();
            scene.run("from_wire", scene.other, &ask);
            let answer = udp(b, stranger, 53, 5_000).bytes();
            let error = icmp_error(stranger, b, kind, code, &answer).bytes();
            assert_eq!(
                scene.run("from_wire", scene.other, &error),
                scene.handed_to_b(&error, Reason::RelatedError)
            );
        }
    });
}

#[test]
fn about_no_connection_are_dropped() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b, unknown) = (family.a(), family.b(), family.unknown());
            let (kind, code) = unreachable(family);
            // A may not have sent it, and was not allowed to be sent anything like it.
            let never_sent = udp(a, unknown, 4_000, 53).bytes();
            let error = icmp_error(unknown, a, kind, code, &never_sent).bytes();
            scene.change(|contents| {
                let any = |set| PolicyKey {
                    side: side(set, INGRESS),
                    peer: ANY_PEER,
                };
                let isolated = contents.policy[&any(2)];
                contents.policy.insert(any(1), isolated);
            });
            for (program, ifindex) in [("to_pod", scene.a), ("from_wire", scene.other)] {
                assert_eq!(
                    scene.run(program, ifindex, &error),
                    Seen::dropped(&error, Reason::UnrelatedError),
                    "{program}"
                );
            }
            // What it quotes was sent by somebody else than whom it goes to.
            let not_of_a = udp(family.stranger(), b, 4_000, 53).bytes();
            let error = icmp_error(b, a, kind, code, &not_of_a).bytes();
            assert_eq!(
                scene.sent_by_b(&error),
                Seen::dropped(&error, Reason::UnrelatedError)
            );
        }
    });
}

/// The error about `sent` that comes of translating one about `arrived`: the checksum in the packet that it quotes stays
/// that of the packet that arrived, and the ICMP checksum is right for it.
pub fn about(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    code: u8,
    sent: &[u8],
    arrived: &[u8],
) -> Vec<u8> {
    let mut expected = icmp_error(source, destination, kind, code, sent).bytes();
    let network = if source.is_ipv4() { 20 } else { 40 };
    let transport_checksum = match sent[14 + if source.is_ipv4() { 9 } else { 6 }] {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => 2,
    };
    let theirs = 14 + network + transport_checksum;
    let ours = theirs + network + 8;
    let (old, new) = (word(&expected[ours..]), word(&arrived[theirs..]));
    expected[ours..ours + 2].copy_from_slice(&new.to_be_bytes());
    let checksum = 14 + network + 2;
    let mended = mend(word(&expected[checksum..]), old, new);
    expected[checksum..checksum + 2].copy_from_slice(&mended.to_be_bytes());
    expected
}

fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// RFC 1624, equation 3.
fn mend(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
