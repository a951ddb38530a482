//! The plan over generated clusters: it depends on what is, it comes to rest, and no node opens on the way.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use weir_policy::arbitrary;
use weir_policy::cluster::Cluster as Reference;
use weir_policy::resolved::{Flow, Verdict};
use weir_policy::snapshot::{Labels, NetworkPolicy, Node, ObjectName, Pod, Snapshot};

use crate::kernels::Kernels;
use crate::simulation::Simulation;
use crate::view::settled_view;

fn config(file: &'static str, cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config("proptest-regressions/settled.txt", 150))]

    /// Numbers and revisions apart, what is written does not depend on what was written before, nor on which nodes
    /// acknowledge when.
    #[test]
    fn what_is_written_follows_from_what_is(
        passing in proptest::collection::vec(arbitrary::snapshot(), 0..3),
        last in arbitrary::snapshot(),
        order in proptest::collection::vec(any::<Index>(), 16),
    ) {
        let mut simulation = Simulation::default();
        for snapshot in passing {
            simulation.become_snapshot(snapshot);
            // The next change comes while the last one is under way.
            simulation.advance(&order, 3, &mut |_| {});
        }
        simulation.become_snapshot(last.clone());
        simulation.settle(&order, &mut |_| {});

        let mut fresh = Simulation::default();
        fresh.become_snapshot(last);
        fresh.settle(&[], &mut |_| {});
        prop_assert_eq!(settled_view(&simulation), settled_view(&fresh));
    }
}

proptest! {
    #![proptest_config(config("proptest-regressions/policies.txt", 100))]

    /// Policies change, pods stay.
    #[test]
    fn a_change_of_policies_opens_nothing_on_the_way(
        (before, after, flows) in changed_policies(),
        order in proptest::collection::vec(any::<Index>(), 16),
    ) {
        opens_nothing(before, after, &flows, &order)?;
    }
}

proptest! {
    #![proptest_config(config("proptest-regressions/labels.txt", 100))]

    /// One pod's labels change, and nothing else.
    #[test]
    fn a_change_of_labels_opens_nothing_on_the_way(
        (before, after, flows) in changed_labels(),
        order in proptest::collection::vec(any::<Index>(), 16),
    ) {
        opens_nothing(before, after, &flows, &order)?;
    }
}

/// Generated policies hardly ever drop a key at the very moment when another policy denies the same.
#[test]
fn a_key_stays_relevant_while_a_kernel_needs_it() {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let pod = |node: &str, address: &str, pairs| Pod {
        labels: labels(pairs),
        node: node.to_owned(),
        addresses: vec![address.parse().unwrap()],
        ..Pod::default()
    };
    let policy = |ingress: Value| NetworkPolicy {
        annotations: Labels::new(),
        spec: serde_json::from_value(json!({
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": ingress,
        }))
        .unwrap(),
    };
    let mut before = Snapshot::default();
    before.namespaces.insert("shop".to_owned(), Labels::new());
    for node in ["n1", "n2"] {
        before.nodes.insert(node.to_owned(), Node::default());
    }
    let web = pod("n1", "10.0.0.1", &[("app", "web"), ("tier", "1")]);
    before.pods.insert(ObjectName::new("shop", "web"), web);
    let db = pod("n2", "10.0.0.2", &[("app", "db")]);
    before.pods.insert(ObjectName::new("shop", "db"), db);
    let name = ObjectName::new("shop", "db");
    // All but tier 1; then nobody at all.
    let expression = json!({"key": "tier", "operator": "NotIn", "values": ["1"]});
    let others = policy(json!([{"from": [{"podSelector": {"matchExpressions": [expression]}}]}]));
    before.network_policies.insert(name.clone(), others);
    let mut after = before.clone();
    after.network_policies.insert(name, policy(json!([])));
    let flow = Flow {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        protocol: 6,
        destination_port: 80,
    };
    opens_nothing(before, after, &[flow], &[]).unwrap();
}

fn changed_policies() -> impl Strategy<Value = (Snapshot, Snapshot, Vec<Flow>)> {
    (arbitrary::snapshot(), arbitrary::snapshot()).prop_flat_map(|(before, other)| {
        let after = Snapshot {
            network_policies: other.network_policies,
            cluster_network_policies: other.cluster_network_policies,
            ..before.clone()
        };
        let flows = arbitrary::some_flows(&before, 60);
        (Just(before), Just(after), flows)
    })
}

fn changed_labels() -> impl Strategy<Value = (Snapshot, Snapshot, Vec<Flow>)> {
    let label = (
        prop_oneof![Just("app"), Just("tier")],
        prop_oneof![Just("x"), Just("y")],
    );
    let labels = proptest::collection::btree_map(
        label.clone().prop_map(|(key, _)| key.to_owned()),
        label.prop_map(|(_, value)| value.to_owned()),
        0..3,
    );
    (arbitrary::snapshot(), labels, any::<Index>()).prop_flat_map(
        |(before, labels, index): (Snapshot, Labels, Index)| {
            let mut after = before.clone();
            let index = index.index(after.pods.len());
            after.pods.values_mut().nth(index).unwrap().labels = labels;
            let flows = arbitrary::some_flows(&before, 60);
            (Just(before), Just(after), flows)
        },
    )
}

/// After every single write, and every acknowledgement, each node is asked about each flow: what both the policy before
/// and the policy after deny is denied.
fn opens_nothing(
    before: Snapshot,
    after: Snapshot,
    flows: &[Flow],
    order: &[Index],
) -> Result<(), TestCaseError> {
    let (old, new) = (Reference::new(before.clone()), Reference::new(after.clone()));
    let mut simulation = Simulation::default();
    simulation.become_snapshot(before);
    simulation.settle(&[], &mut |_| {});
    let kernels = Kernels::of(&simulation);
    for flow in flows {
        prop_assert_eq!(kernels.allowed(flow), verdicts(&old, flow), "before: {:?}", flow);
    }
    simulation.become_snapshot(after);
    let mut failure = None;
    let mut look = |simulation: &Simulation| {
        let kernels = Kernels::of(simulation);
        for flow in flows {
            let (was, will) = (verdicts(&old, flow), verdicts(&new, flow));
            for (side, allows) in kernels.allowed(flow) {
                let may = was.get(side) == Some(&true) || will.get(side) == Some(&true);
                if allows && !may {
                    failure.get_or_insert_with(|| format!("{side} of {flow:?} is open"));
                }
            }
        }
    };
    simulation.settle(order, &mut look);
    prop_assert_eq!(failure, None);
    let kernels = Kernels::of(&simulation);
    for flow in flows {
        prop_assert_eq!(kernels.allowed(flow), verdicts(&new, flow), "after: {:?}", flow);
    }
    Ok(())
}

/// What holds for each end of a flow that is a pod, by the reference.
fn verdicts(reference: &Reference, flow: &Flow) -> BTreeMap<&'static str, bool> {
    let answer = reference.answer(flow);
    let sides = [("egress", answer.egress), ("ingress", answer.ingress)];
    sides
        .into_iter()
        .filter_map(|(side, judgement)| Some((side, judgement?.enforced.verdict == Verdict::Allow)))
        .collect()
}
