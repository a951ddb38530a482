//! Asking what would happen changes nothing.

use std::collections::BTreeMap;

use weir_abi::address::Address;
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::explain::Explanation;
use weir_abi::flow::{FlowKey4, FlowKey6};
use weir_abi::policy::RuleCount;
use weir_abi::reason::Reason;
use weir_agent::contents::Contents;
use weir_agent::kernel::{Kernel, LogCount};
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::testing::{samples, tcp, udp};

use crate::bed::{FAMILIES, Scene, by, flows, identity, rule, serve};
use crate::kernel_bed::in_bed;

/// Everything that any map holds.
#[derive(Debug, PartialEq, Eq)]
struct Everything {
    contents: Contents,
    flows: String,
    reasons: BTreeMap<Reason, u64>,
    rules: BTreeMap<u32, RuleCount>,
    log: LogCount,
    overflow: u32,
    revision: u32,
}

fn everything(kernel: &Kernel) -> Everything {
    use weir_agent::table::Maps as _;
    Everything {
        contents: Contents::read(kernel).unwrap(),
        flows: format!("{:?} {:?}", flows::<FlowKey4>(kernel), flows::<FlowKey6>(kernel)),
        reasons: kernel.packets().unwrap(),
        rules: kernel.rule_counts().unwrap(),
        log: kernel.log_count().unwrap(),
        overflow: kernel.overflow().unwrap(),
        revision: kernel.control().unwrap().revision,
    }
}

#[test]
fn writes_nothing_whatever_the_packet() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            scene.change(|contents| {
                serve(
                    contents,
                    family.service(),
                    80,
                    protocol::TCP,
                    &[(family.b(), 8_080)],
                )
            });
            scene.sent_by_a(&tcp(family.a(), family.b(), 4_000, 80, tcp_flags::SYN).bytes());
            scene.sent_by_a(&tcp(family.a(), family.service(), 4_001, 80, tcp_flags::SYN).bytes());
        }
        let before = everything(&scene.kernel);
        let mut packets: Vec<Vec<u8>> = samples().into_iter().map(|(_, packet)| packet).collect();
        for family in FAMILIES {
            for to in [
                family.b(),
                family.remote(),
                family.stranger(),
                family.node(),
                family.service(),
                family.a(),
            ] {
                for flags in [tcp_flags::SYN, tcp_flags::ACK, tcp_flags::RST, tcp_flags::FIN] {
                    packets.push(tcp(family.a(), to, 4_000, 80, flags).bytes());
                }
                packets.push(udp(family.a(), to, 4_000, 53).bytes());
            }
        }
        for packet in &packets {
            for ifindex in [scene.a, scene.b, scene.other] {
                scene.kernel.explain(packet, ifindex).unwrap();
            }
        }
        assert_eq!(everything(&scene.kernel), before);
    });
}

#[test]
fn tells_the_cause() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        for family in FAMILIES {
            let (a, b) = (family.a(), family.b());
            scene.change(|contents| {
                serve(
                    contents,
                    family.service(),
                    80,
                    protocol::TCP,
                    &[(b, 8_080), (family.remote(), 1)],
                );
                serve(contents, family.service(), 81, protocol::TCP, &[]);
            });
            let syn = |to, port| tcp(a, to, 4_000, port, tcp_flags::SYN).bytes();
            let answer = |reason: Reason, to, port: u16, identity, egress, ingress| Explanation {
                reason: reason as u8,
                has_flow: 0,
                padding: [0; 2],
                source_identity: identity::A,
                destination_identity: identity,
                destination_port: port.to_be(),
                padding2: 0,
                destination: Address::from_ip(to),
                egress,
                ingress,
            };
            let none = SideVerdict::NOT_JUDGED;
            let (allow, deny) = (side_verdict::ALLOW, side_verdict::DENY);
            let allowed = |port| {
                let ingress = by(allow, rule::B_FROM_A);
                answer(
                    Reason::Allowed,
                    b,
                    port,
                    identity::B,
                    by(allow, rule::A_TO_B),
                    ingress,
                )
            };
            let explain = |scene: &Scene, packet: &[u8]| scene.kernel.explain(packet, scene.a).unwrap();
            assert_eq!(explain(&scene, &syn(b, 80)), allowed(80));
            assert_eq!(explain(&scene, &syn(family.service(), 80)), allowed(8_080));
            assert_eq!(
                explain(&scene, &syn(family.remote(), 80)),
                answer(
                    Reason::Isolated,
                    family.remote(),
                    80,
                    identity::REMOTE,
                    by(deny, rule::A_ISOLATED),
                    none
                )
            );
            let exempt = answer(Reason::LocalNode, family.node(), 80, 0, none, none);
            assert_eq!(explain(&scene, &syn(family.node(), 80)), exempt);
            let nowhere = explain(&scene, &syn(family.service(), 81));
            assert_eq!(nowhere.reason, Reason::NoBackend as u8);

            scene.sent_by_a(&syn(b, 80));
            assert_eq!(
                explain(&scene, &syn(b, 80)),
                Explanation {
                    has_flow: 1,
                    ..allowed(80)
                }
            );
        }
    });
}
