//! What is logged, what is sampled, and what the budget cuts off.

use std::collections::BTreeMap;

use weir_abi::event::event_flags;
use weir_abi::policy::RuleCount;
use weir_abi::reason::Reason;
use weir_abi::workload::workload_flags;
use weir_agent::kernel::LogCount;
use weir_datapath::testing::udp;

use crate::bed::{Family, Scene, rule};
use crate::kernel_bed::in_bed;

#[test]
fn an_end_that_nobody_wants_to_hear_of_is_counted_only() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        let family = Family::V4;
        let cases = [
            (0, 0),
            (workload_flags::LOG_EGRESS_ALLOW, event_flags::LOG_EGRESS),
            (workload_flags::LOG_INGRESS_ALLOW, event_flags::LOG_INGRESS),
            (
                workload_flags::LOG_EGRESS_ALLOW | workload_flags::LOG_INGRESS_ALLOW,
                event_flags::LOG_EGRESS | event_flags::LOG_INGRESS,
            ),
            (
                workload_flags::LOG_EGRESS_DENY | workload_flags::LOG_INGRESS_DENY,
                0,
            ),
        ];
        for ((wishes, flags), port) in cases.into_iter().zip(4_000..) {
            scene.log(wishes, 1);
            let seen = scene.sent_by_a(&udp(family.a(), family.b(), port, 53).bytes());
            let logged: Vec<u8> = seen.records.iter().map(|record| record.flags).collect();
            let expected: Vec<u8> = [flags].into_iter().filter(|flags| *flags != 0).collect();
            assert_eq!(logged, expected, "{wishes:#x}");
            let counted = |bit| RuleCount {
                allowed: 1,
                logged: u64::from(flags & bit != 0),
                ..RuleCount::default()
            };
            let rules = [
                (rule::A_TO_B, counted(event_flags::LOG_EGRESS)),
                (rule::B_FROM_A, counted(event_flags::LOG_INGRESS)),
            ];
            assert_eq!(seen.rules, rules.into());

            let denied = scene.sent_by_a(&udp(family.a(), family.remote(), port, 53).bytes());
            let wanted = wishes & workload_flags::LOG_EGRESS_DENY != 0;
            assert_eq!(denied.records.len(), usize::from(wanted));
            let count = RuleCount {
                denied: 1,
                logged: u64::from(wanted),
                ..RuleCount::default()
            };
            assert_eq!(denied.rules, [(rule::A_ISOLATED, count)].into());
        }
    });
}

#[test]
fn past_the_budget_records_are_lost_and_counted() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        let family = Family::V4;
        scene.budget(0);
        let seen = scene.sent_by_a(&udp(family.a(), family.b(), 4_000, 53).bytes());
        assert_eq!(seen.records, []);
        let lost = RuleCount {
            allowed: 1,
            denied: 0,
            logged: 1,
            lost: 1,
        };
        assert_eq!(seen.rules, [(rule::A_TO_B, lost), (rule::B_FROM_A, lost)].into());
        let seen = scene.sent_by_a(&udp(family.a(), family.remote(), 4_000, 53).bytes());
        let lost = RuleCount {
            allowed: 0,
            denied: 1,
            ..lost
        };
        assert_eq!(seen.rules, [(rule::A_ISOLATED, lost)].into());
        assert_eq!(scene.kernel.log_count().unwrap(), LogCount { due: 2, lost: 2 });

        // So many a second and CPU: a run that spans two seconds, or two CPUs, writes more.
        scene.budget(10);
        let mut written = 0;
        let mut counts = BTreeMap::<u32, RuleCount>::new();
        for port in 5_000..5_200 {
            let seen = scene.sent_by_a(&udp(family.a(), family.b(), port, 53).bytes());
            written += seen.records.len() as u64;
            for (rule, count) in seen.rules {
                let sum = counts.entry(rule).or_default();
                sum.logged += count.logged;
                sum.lost += count.lost;
            }
        }
        assert!((10..200).contains(&written), "{written}");
        for count in counts.values() {
            assert_eq!((count.logged, count.logged - count.lost), (200, written));
        }
    });
}

#[test]
fn one_in_so_many_is_logged() {
    in_bed(|bed| {
        let mut scene = Scene::new(bed);
        scene.log(
            workload_flags::LOG_EGRESS_ALLOW
                | workload_flags::LOG_EGRESS_DENY
                | workload_flags::LOG_INGRESS_DENY,
            4,
        );
        let family = Family::V6;
        let (mut logged, mut allowed) = (0, 0);
        for port in 10_000..10_400 {
            let seen = scene.sent_by_a(&udp(family.a(), family.b(), port, 53).bytes());
            assert_eq!(seen.reasons, [(Reason::Allowed, 1)].into());
            let count = seen.rules[&rule::A_TO_B];
            assert_eq!(seen.records.len() as u64, count.logged);
            logged += count.logged;
            allowed += count.allowed;
            // Denials are never sampled.
            let denied = scene.sent_by_a(&udp(family.a(), family.remote(), port, 53).bytes());
            assert_eq!(denied.records.len(), 1);
        }
        assert_eq!(allowed, 400);
        // 100 expected, standard deviation 8.7.
        assert!((40..170).contains(&logged), "{logged}");
    });
}
