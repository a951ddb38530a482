//! A pod of another node, before the agent has heard of it.

use std::net::IpAddr;

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::{NON_MASQUERADE, POD_RANGE};
use weir_abi::policy::{EGRESS, PolicyKey, side};
use weir_abi::reason::Reason;
use weir_datapath::packet::tcp_flags;
use weir_datapath::testing::tcp;

use crate::bed::{A_SET, DENIED, FAMILIES, Family, Scene, TC_ACT_SHOT, identity, rule};
use crate::kernel_bed::in_bed;

#[test]
fn it_is_closed_with_a_reason_of_its_own_until_the_agent_has_heard_of_it() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        let accept = scene.contents.policy[&PolicyKey {
            side: side(A_SET, EGRESS),
            peer: identity::B,
        }];
        scene.decide(EGRESS, identity::REMOTE, accept);
        for family in FAMILIES {
            let remote = Address::from_ip(family.remote());
            let (network, prefix_len) = match family {
                Family::V4 => (IpAddr::from([10, 0, 1, 0]), 120),
                Family::V6 => (IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, 0]), 64),
            };
            let range = CidrKey {
                prefix_len,
                address: Address::from_ip(network).0,
            };
            scene.change(|contents| {
                contents.addresses.remove(&remote);
                contents.non_masquerade.insert(range, NON_MASQUERADE | POD_RANGE);
            });
            let to = |address| tcp(family.a(), address, 4_000, 80, tcp_flags::SYN).bytes();
            let seen = scene.sent_by_a(&to(family.remote()));
            assert_eq!(
                (seen.action, seen.reasons, seen.rules),
                (
                    TC_ACT_SHOT,
                    [(Reason::PeerUnknown, 1)].into(),
                    [(rule::A_ISOLATED, DENIED)].into()
                )
            );
            // Who is in no such range is no pod.
            let outside = scene.sent_by_a(&to(family.unknown()));
            assert_eq!(outside.reasons, [(Reason::Isolated, 1)].into());
            scene.change(|contents| {
                let known = AddressValue {
                    identity: identity::REMOTE,
                    flags: 0,
                };
                contents.addresses.insert(remote, known);
            });
            let seen = scene.sent_by_a(&to(family.remote()));
            assert!(seen.reasons.keys().all(|reason| reason.is_forward()), "{seen:?}");
        }
    });
}
