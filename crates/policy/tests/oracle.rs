//! Resolved policy says of every flow what the oracle says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_policy::cluster::{Cluster, is_accepted};
use weir_policy::resolved::{Cause, Flow};
use weir_policy::snapshot::Snapshot;
use weir_policy::{arbitrary, oracle};

/// How many flows of each cluster are judged.
const FLOWS: usize = 250;

fn cluster_and_flows() -> impl Strategy<Value = (Snapshot, Vec<Flow>)> {
    arbitrary::snapshot().prop_flat_map(|snapshot| {
        let flows = arbitrary::some_flows(&snapshot, FLOWS);
        (Just(snapshot), flows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/oracle.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn resolve_agrees_with_the_oracle((snapshot, flows) in cluster_and_flows()) {
        let cluster = Cluster::new(snapshot);
        for flow in flows {
            let expected = oracle::answer(&cluster.snapshot, &flow);
            let answer = cluster.answer(&flow);
            prop_assert!(
                is_accepted(&answer, &expected),
                "{flow:?}\n resolved: {answer:#?}\n   oracle: {expected:#?}"
            );
        }
    }
}

/// The generated clusters bring about every kind of outcome often enough for the agreement to mean something.
#[test]
fn generated_flows_meet_every_kind_of_decision() {
    let mut runner = TestRunner::deterministic();
    let mut outcomes = BTreeMap::<String, usize>::new();
    for _ in 0..200 {
        let tree = cluster_and_flows()
            .new_tree(&mut runner)
            .expect("the strategy rejects nothing");
        let (snapshot, flows) = tree.current();
        for flow in &flows {
            let answer = oracle::answer(&snapshot, flow);
            for judgement in [answer.egress, answer.ingress].into_iter().flatten() {
                *outcomes.entry(outcome(&judgement.enforced)).or_default() += 1;
                if judgement.dry_run != judgement.enforced {
                    *outcomes.entry("dry run differs".to_owned()).or_default() += 1;
                }
            }
        }
    }
    let kinds = [
        "Admin Accept",
        "Admin Deny",
        "NetworkPolicy Accept",
        "Baseline Accept",
        "Baseline Deny",
        "isolated",
        "default",
        "dry run differs",
    ];
    for kind in kinds {
        let count = outcomes.get(kind).copied().unwrap_or_default();
        assert!(
            count >= 300,
            "{kind}: {count} of 200 clusters with {FLOWS} flows: {outcomes:?}"
        );
    }
}

fn outcome(ruling: &oracle::Ruling) -> String {
    match ruling.causes.first() {
        None => "default".to_owned(),
        Some(Cause::Isolated { .. }) => "isolated".to_owned(),
        Some(Cause::Rule { tier, action, .. }) => format!("{tier:?} {action:?}"),
    }
}
