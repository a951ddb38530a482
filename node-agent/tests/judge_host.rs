//! The second judge: the host's datapath over the desired maps says of every flow what the oracle says.

mod judging;

use std::collections::{BTreeMap, BTreeSet};

use judging::cluster::{NODES, World, desired_for, desired_with, world};
use judging::host::{judged, sides};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::policy::NO_RULE;
use weir_abi::reason::Reason;
use weir_agent::contents::Contents;
use weir_agent::desired::Desired;
use weir_agent::log_wishes::LogWishes;
use weir_policy::lower::DRY_RUN_ANNOTATION;
use weir_policy::resolved::{Cause, Flow, Verdict};
use weir_policy::snapshot::Snapshot;
use weir_policy::{arbitrary, oracle};

/// How many flows of each cluster are judged.
const FLOWS: usize = 200;

fn world_and_flows() -> impl Strategy<Value = (World, Vec<Flow>)> {
    world().prop_flat_map(|world| {
        let flows = arbitrary::some_flows(&world.snapshot, FLOWS);
        (Just(world), flows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/judge_host.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_host_agrees_with_the_oracle((world, flows) in world_and_flows()) {
        let without_annotations = enforced_all(&world.snapshot);
        for node in NODES {
            let desired = desired_for(&world, node, &Contents::default());
            for flow in &flows {
                let expected = oracle::answer(&world.snapshot, flow);
                let in_force = oracle::answer(&without_annotations, flow);
                check(&world.snapshot, node, &desired, flow, &expected, &in_force)?;
            }
        }
    }
}

/// The cluster in which nothing is a dry run.
fn enforced_all(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let networks = snapshot
        .network_policies
        .values_mut()
        .map(|policy| &mut policy.annotations);
    let clusters = snapshot
        .cluster_network_policies
        .values_mut()
        .map(|policy| &mut policy.annotations);
    networks.chain(clusters).for_each(|annotations| {
        annotations.remove(DRY_RUN_ANNOTATION);
    });
    snapshot
}

fn check(
    snapshot: &Snapshot,
    node: &str,
    desired: &Desired,
    flow: &Flow,
    expected: &oracle::Answer,
    in_force: &oracle::Answer,
) -> Result<(), TestCaseError> {
    let is_local = |address| {
        let mut pods = snapshot.pods.values();
        pods.any(|pod| pod.node == node && pod.is_on_pod_network() && pod.addresses.contains(&address))
    };
    let at_node =
        |is_local: bool, judgement: &Option<oracle::Judgement>| judgement.clone().filter(|_| is_local);
    let (from, to) = (is_local(flow.source), is_local(flow.destination));
    let sides = sides(&desired.contents, flow);
    for (side, is_local, expected, in_force) in [
        (sides.egress, from, &expected.egress, &in_force.egress),
        (sides.ingress, to, &expected.ingress, &in_force.ingress),
    ] {
        let (expected, in_force) = (at_node(is_local, expected), at_node(is_local, in_force));
        prop_assert_eq!(side.is_some(), expected.is_some(), "{:?} on {}", flow, node);
        let (Some(side), Some(expected), Some(in_force)) = (side, expected, in_force) else {
            continue;
        };
        prop_assert!(
            is_accepted(desired, &side, &expected),
            "{flow:?} on {node}\n host: {side:?} {:?}\n oracle: {expected:?}",
            desired.rules.get(&side.rule)
        );
        prop_assert_eq!(
            allows(side.dry_run_verdict),
            in_force.enforced.verdict,
            "{:?} on {}",
            flow,
            node
        );
    }
    let (reason, judgement) = judged(&desired.contents, flow);
    prop_assert_eq!(
        reason,
        expected_reason(desired, flow, node, snapshot, (sides.egress, sides.ingress)),
        "{:?} on {}",
        flow,
        node
    );
    // Behind a denial at the source, the destination's side is not asked.
    let is_exempt = matches!(reason, Reason::LocalNode | Reason::ToItself | Reason::NotForPod);
    let is_denied = sides
        .egress
        .is_some_and(|side| side.verdict == side_verdict::DENY);
    let asked = (
        sides.egress.filter(|_| !is_exempt),
        sides.ingress.filter(|_| !is_exempt && !is_denied),
    );
    let written = |side: Option<SideVerdict>| side.unwrap_or(SideVerdict::NOT_JUDGED);
    prop_assert_eq!(
        (judgement.egress, judgement.ingress),
        (written(asked.0), written(asked.1))
    );
    Ok(())
}

fn is_accepted(desired: &Desired, side: &SideVerdict, expected: &oracle::Judgement) -> bool {
    let ruling = |verdict, rule, expected: &oracle::Ruling| {
        let cause = desired.rules.get(&rule);
        allows(verdict) == expected.verdict
            && match cause {
                None => rule == NO_RULE && expected.causes.is_empty(),
                Some(cause) => expected.causes.contains(cause),
            }
    };
    ruling(side.verdict, side.rule, &expected.enforced)
        && ruling(side.dry_run_verdict, side.dry_run_rule, &expected.dry_run)
}

fn allows(verdict: u8) -> Verdict {
    match verdict {
        side_verdict::ALLOW => Verdict::Allow,
        side_verdict::DENY => Verdict::Deny,
        other => panic!("{other} is no verdict"),
    }
}

/// The word for what the two sides say.
fn expected_reason(
    desired: &Desired,
    flow: &Flow,
    node: &str,
    snapshot: &Snapshot,
    (egress, ingress): (Option<SideVerdict>, Option<SideVerdict>),
) -> Reason {
    if egress.is_none() && ingress.is_none() {
        return Reason::NotForPod;
    }
    if flow.source == flow.destination {
        return Reason::ToItself;
    }
    let own = &snapshot.nodes[node].addresses;
    if own.contains(&flow.source) || own.contains(&flow.destination) {
        return Reason::LocalNode;
    }
    let sides: Vec<SideVerdict> = [egress, ingress].into_iter().flatten().collect();
    match sides.iter().find(|side| side.verdict == side_verdict::DENY) {
        Some(side) => match &desired.rules[&side.rule] {
            Cause::Isolated { .. } => Reason::Isolated,
            Cause::Rule { .. } => Reason::RuleDenied,
        },
        None if sides.iter().all(|side| side.rule == NO_RULE) => Reason::DefaultAllowed,
        None => Reason::Allowed,
    }
}

/// A pod whose policy is not complete speaks with its own node and with nobody else, in either direction.
#[test]
fn a_closed_pod_is_closed_to_all_but_its_node() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..20 {
        let (world, flows) = world_and_flows()
            .new_tree(&mut runner)
            .expect("the strategy rejects nothing")
            .current();
        let node = NODES[0];
        let mut pods = judging::cluster::connected(
            &world.snapshot,
            node,
            judging::cluster::ifindex_by_name,
            LogWishes::default(),
        );
        let Some(pod) = pods.values_mut().next() else {
            continue;
        };
        pod.closed = true;
        let closed = pod.addresses.clone();
        let contents = desired_with(&world, node, &pods, &Contents::default()).contents;
        for flow in flows.iter().filter(|flow| flow.source != flow.destination) {
            let (reason, _) = judged(&contents, flow);
            let own = &world.snapshot.nodes[node].addresses;
            let with_node = own.contains(&flow.source) || own.contains(&flow.destination);
            if closed.contains(&flow.source) {
                let expected = if with_node {
                    Reason::LocalNode
                } else {
                    Reason::PodClosed
                };
                assert_eq!(reason, expected, "{flow:?}");
            } else if closed.contains(&flow.destination) {
                let open_or = [
                    Reason::PodClosed,
                    Reason::RuleDenied,
                    Reason::Isolated,
                    Reason::LocalNode,
                ];
                assert!(open_or.contains(&reason), "{flow:?}: {reason:?}");
            }
        }
    }
}

/// The generated maps hold every kind of entry often enough for the agreement to mean something.
#[test]
fn generated_maps_hold_every_kind_of_entry() {
    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeMap::<&str, usize>::new();
    let mut reasons = BTreeSet::new();
    for _ in 0..100 {
        let (world, flows) = world_and_flows()
            .new_tree(&mut runner)
            .expect("the strategy rejects nothing")
            .current();
        let contents = desired_for(&world, NODES[0], &Contents::default()).contents;
        let mut count = |kind, there: bool| *kinds.entry(kind).or_default() += usize::from(there);
        let peers = || contents.policy.keys().map(|key| key.peer);
        count("identity", peers().any(|peer| peer != 0 && peer & (1 << 31) == 0));
        count("cidr", peers().any(|peer| peer & (1 << 31) != 0));
        count("any", peers().any(|peer| peer == 0));
        count("ports", !contents.ports.is_empty());
        count(
            "dry run",
            contents
                .policy
                .values()
                .any(|value| value.enforced != value.dry_run),
        );
        count("services", !contents.services.is_empty());
        count(
            "IPv6 around IPv4",
            contents.cidrs.keys().any(|key| key.prefix_len == 0),
        );
        reasons.extend(flows.iter().map(|flow| judged(&contents, flow).0));
    }
    assert!(kinds.values().all(|count| *count >= 5), "of 100: {kinds:?}");
    let every = [
        Reason::Allowed,
        Reason::DefaultAllowed,
        Reason::LocalNode,
        Reason::NotForPod,
        Reason::ToItself,
        Reason::RuleDenied,
        Reason::Isolated,
    ];
    assert_eq!(reasons, every.into());
}
