//! Who may send what where, before policy is asked.

use std::net::Ipv4Addr;

use weir_abi::address::Address;
use weir_abi::event::{FlowEvent, SideVerdict, event_flags, side_verdict};
use weir_abi::reason::Reason;
use weir_abi::workload::workload_flags;
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{arp, ether_type, ethernet, neighbour_discovery, tcp, udp};

use crate::bed::{FAMILIES, Family, Scene, Seen, record};
use crate::kernel_bed::in_bed;

const SYN: u8 = tcp_flags::SYN;

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            for claimed in [b, family.node(), family.remote(), family.unknown()] {
                let packet = udp(claimed, family.stranger(), 4_000, 53).bytes();
                assert_eq!(
                    scene.sent_by_a(&packet),
                    Seen::dropped(&packet, Reason::SourceNotOwn),
                    "{claimed}"
                );
            }
            // On an interface that is no pod's, no address is its own.
            let packet = udp(a, b, 4_000, 53).bytes();
            assert_eq!(
                scene.run("from_pod", scene.other, &packet),
                Seen::dropped(&packet, Reason::SourceNotOwn)
            );
            // Nor does an entry of the connection help.
            scene.sent_by_a(&packet);
            assert_eq!(
                scene.sent_by_b(&packet),
                Seen::dropped(&packet, Reason::SourceNotOwn)
            );
            for (program, ifindex) in [("to_pod", scene.b), ("from_wire", scene.other)] {
                assert_eq!(
                    scene.run(program, ifindex, &packet),
                    Seen::dropped(&packet, Reason::SourceNotOwn),
                    "{program}"
                );
            }
        }
    });
}

#[test]
fn nothing_reaches_a_pod_that_is_not_known() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            for to in [family.unknown(), family.a()] {
                let packet = tcp(family.node(), to, 4_000, 80, SYN).bytes();
                assert_eq!(
                    scene.run("to_pod", scene.b, &packet),
                    Seen::dropped(&packet, Reason::PodClosed)
                );
            }
            // What is not for a pod goes past it.
            let packet = tcp(family.stranger(), family.node(), 4_000, 22, SYN).bytes();
            assert_eq!(
                scene.run("from_wire", scene.other, &packet),
                Seen::passed(&packet, Reason::NotForPod)
            );
        }
    });
}

#[test]
fn a_pod_and_its_node_speak_freely() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let probe = tcp(family.node(), family.b(), 4_000, 8_080, SYN).bytes();
            assert_eq!(
                scene.run("to_pod", scene.b, &probe),
                Seen::passed(&probe, Reason::LocalNode)
            );
            let answer = tcp(family.b(), family.node(), 8_080, 4_000, SYN | tcp_flags::ACK).bytes();
            assert_eq!(scene.sent_by_b(&answer), Seen::passed(&answer, Reason::LocalNode));
            let ask = udp(family.a(), family.node(), 4_000, 53).bytes();
            assert_eq!(scene.sent_by_a(&ask), Seen::passed(&ask, Reason::LocalNode));
        }
    });
}

/// A pod whose policy is not complete speaks with its node only, and nobody with it.
#[test]
fn a_closed_pod_is_closed() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            scene.change(|contents| {
                let closed = contents.workloads.get_mut(&Address::from_ip(family.a())).unwrap();
                closed.flags |= workload_flags::CLOSED;
            });
            let denied = SideVerdict {
                verdict: side_verdict::DENY,
                dry_run_verdict: side_verdict::DENY,
                ..SideVerdict::NOT_JUDGED
            };
            let ask = udp(family.a(), family.b(), 4_000, 53).bytes();
            let seen = scene.sent_by_a(&ask);
            let out = FlowEvent {
                flags: event_flags::LOG_EGRESS,
                egress: SideVerdict {
                    dry_run_verdict: seen.records[0].egress.dry_run_verdict,
                    ..denied
                },
                ..record(
                    Reason::PodClosed,
                    protocol::UDP,
                    (family.a(), 4_000),
                    (family.b(), 53),
                )
            };
            assert_eq!(seen, Seen::dropped(&ask, Reason::PodClosed).record(out));
            let ask = udp(family.b(), family.a(), 4_001, 53).bytes();
            let seen = scene.sent_by_b(&ask);
            assert_eq!((seen.action, seen.reasons), (2, [(Reason::PodClosed, 1)].into()));
            let probe = tcp(family.node(), family.a(), 4_000, 80, SYN).bytes();
            assert_eq!(
                scene.run("to_pod", scene.a, &probe),
                Seen::passed(&probe, Reason::LocalNode)
            );
        }
    });
}

#[test]
fn multicast_from_a_pod_goes_nowhere() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for (from, to) in [
            (Family::V4, "224.0.0.251"),
            (Family::V4, "239.255.255.250"),
            (Family::V4, "255.255.255.255"),
            (Family::V6, "ff02::fb"),
            (Family::V6, "ff0e::1"),
        ] {
            let packet = udp(from.a(), to.parse().unwrap(), 5_353, 5_353).bytes();
            assert_eq!(
                scene.sent_by_a(&packet),
                Seen::dropped(&packet, Reason::Multicast),
                "{to}"
            );
        }
    });
}

#[test]
fn what_finds_the_link_passes() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        let mut packets = vec![arp(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(169, 254, 1, 1))];
        for kind in 133..=137 {
            let to = if kind == 135 { "ff02::1:ff00:1" } else { "fe80::1" };
            packets.push(neighbour_discovery("fe80::2".parse().unwrap(), to.parse().unwrap(), kind).bytes());
        }
        for packet in packets {
            for (program, ifindex, reason) in [
                ("from_pod", scene.a, Reason::LinkControl),
                ("to_pod", scene.a, Reason::LinkControl),
                ("from_wire", scene.other, Reason::NotForPod),
            ] {
                assert_eq!(
                    scene.run(program, ifindex, &packet),
                    Seen::passed(&packet, reason),
                    "{program}"
                );
            }
        }
        // A hop limit below 255 has crossed a router, and is no neighbour's (RFC 4861, section 7.1.1).
        let forged = neighbour_discovery("fe80::2".parse().unwrap(), "fe80::1".parse().unwrap(), 135);
        let forged = forged.hop_limit(254).bytes();
        let seen = scene.sent_by_a(&forged);
        assert_eq!(seen.action, 2, "{seen:?}");
    });
}

#[test]
fn what_is_not_ip_is_dropped() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for kind in [ether_type::VLAN, 0x88cc, 0x8847] {
            let packet = ethernet(kind, &[0; 60]);
            for (program, ifindex) in [("from_pod", scene.a), ("to_pod", scene.a)] {
                assert_eq!(
                    scene.run(program, ifindex, &packet),
                    Seen::dropped(&packet, Reason::UnsupportedEtherType)
                );
            }
            assert_eq!(
                scene.run("from_wire", scene.other, &packet),
                Seen::passed(&packet, Reason::NotForPod)
            );
        }
    });
}
