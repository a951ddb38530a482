//! The plan of a large cluster: how long it takes, and how little of it changes with a pod.

#![expect(clippy::print_stdout, reason = "the times are what one looks at")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde_json::{Value, json};
use weir_operator::cluster::{Cluster, Written};
use weir_operator::existing::{Existing, Held};
use weir_operator::plan::{MOST_SPEC_BYTES, plan};
use weir_operator::statuses::{Facts, Outcome, statuses};
use weir_operator::writes::writes;
use weir_policy::model::{Policy, PolicyRef};
use weir_policy::snapshot::{Labels, NetworkPolicy, Node, ObjectName, Pod, Snapshot};

use crate::simulation::Simulation;

/// How large the cluster is.
struct Size {
    nodes: usize,
    pods: usize,
    policies: usize,
}

const NAMESPACES: usize = 100;

/// Unoptimized, a tenth of it.
const SIZE: Size = if cfg!(debug_assertions) {
    Size {
        nodes: 100,
        pods: 3000,
        policies: 200,
    }
} else {
    Size {
        nodes: 1000,
        pods: 30_000,
        policies: 2000,
    }
};

/// Of a plan. The optimized build has two seconds on one core of any machine of these years.
const BOUND: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });

#[test]
fn a_large_cluster_is_planned_in_time_and_a_pod_touches_little() {
    let mut simulation = Simulation::default();
    simulation.become_snapshot(snapshot());
    write_down(&mut simulation);
    let (wanted, first) = timed(|| plan(&simulation.cluster, &simulation.existing));
    println!("plan of an empty book: {first:?}");
    assert_eq!(wanted.nodes.len(), SIZE.nodes);
    simulation.settle(&[], &mut |_| {});
    let (wanted, again) = timed(|| plan(&simulation.cluster, &simulation.existing));
    let (nothing, compared) = timed(|| writes(&simulation.cluster, &wanted, &simulation.existing));
    println!("plan again: {again:?}, comparison: {compared:?}");
    assert!(nothing.is_empty());
    assert!(first < BOUND && again + compared < BOUND);
    let cut_off = BTreeSet::new();
    let (told, telling) = timed(|| {
        statuses(Facts {
            cluster: &simulation.cluster,
            existing: &simulation.existing,
            wanted: &wanted,
            cut_off: &cut_off,
        })
    });
    println!("statuses: {telling:?}");
    assert!(telling < BOUND);
    assert_eq!(told.len(), SIZE.policies);
    let all = told.iter().flat_map(|status| &status.outcomes);
    assert!(all.into_iter().all(|outcome| outcome.holds));

    // Another replica on a node that has one of its kind.
    let (id, pod) = simulation.cluster.snapshot.pods.iter().next().unwrap();
    let id = ObjectName::new(&id.namespace, "one-more");
    let pod = Pod {
        addresses: vec!["10.255.255.1".parse().unwrap()],
        ..pod.clone()
    };
    simulation.cluster.snapshot.pods.insert(id, pod);
    let wanted = plan(&simulation.cluster, &simulation.existing);
    let writes = writes(&simulation.cluster, &wanted, &simulation.existing);
    assert_eq!(writes.address_slices.len(), 1);
    assert_eq!(
        (
            writes.identity_slices.len(),
            writes.nodes.len(),
            writes.patient.len()
        ),
        (0, 0, 0)
    );
    assert_eq!((writes.identity_head, writes.address_head), (None, None));
}

/// How much of an object a policy takes.
#[test]
fn a_thousand_policies_with_rules_fit_in_an_object() {
    let snapshot = snapshot();
    let cluster = Cluster {
        snapshot,
        ..Cluster::default()
    };
    let wanted = plan(&cluster, &Existing::default());
    let sizes: Vec<usize> = wanted.policies.values().map(|policy| policy.bytes).collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    println!("bytes of a policy with one rule, two peers, two ports: {mean}");
    assert!(1000 * mean < MOST_SPEC_BYTES, "{mean}");
    let block = policy_of_blocks(1000);
    let lowered = serde_json::to_string(&block).unwrap().len();
    println!("bytes of a network of a rule: {}", lowered / 1000);
    assert!(lowered / 1000 < 64, "{lowered}");
}

/// What a node holds of a wanted spec is what one reads of the spec that is written.
#[test]
fn what_is_attempted_is_what_is_read() {
    let cluster = Cluster {
        snapshot: snapshot(),
        ..Cluster::default()
    };
    let wanted = plan(&cluster, &Existing::default());
    for node in wanted.nodes.keys() {
        let spec = serde_json::to_value(wanted.spec(node, 7).unwrap()).unwrap();
        assert_eq!(wanted.held(node, 7).unwrap(), Held::read(&spec), "{node}");
    }
}

#[test]
fn what_is_too_large_is_not_written_and_said() {
    let mut snapshot = Snapshot::default();
    snapshot.nodes.insert("n1".to_owned(), Node::default());
    snapshot.namespaces.insert("shop".to_owned(), Labels::new());
    let pod = Pod {
        node: "n1".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ..Pod::default()
    };
    snapshot.pods.insert(ObjectName::new("shop", "web"), pod);
    for index in 0..5 {
        let policy = NetworkPolicy {
            annotations: Labels::new(),
            spec: spec_of_blocks(8000),
        };
        let name = ObjectName::new("shop", format!("policy-{index}"));
        snapshot.network_policies.insert(name, policy);
    }
    let mut simulation = Simulation::default();
    simulation.become_snapshot(snapshot);
    write_down(&mut simulation);
    let wanted = plan(&simulation.cluster, &simulation.existing);
    let spec = serde_json::to_string(&wanted.spec("n1", 1).unwrap()).unwrap();
    assert!(spec.len() > MOST_SPEC_BYTES);
    let writes = writes(&simulation.cluster, &wanted, &simulation.existing);
    assert_eq!(writes.nodes, Vec::<String>::new());
    let cut_off = BTreeSet::new();
    let told = statuses(Facts {
        cluster: &simulation.cluster,
        existing: &simulation.existing,
        wanted: &wanted,
        cut_off: &cut_off,
    });
    let size = wanted.nodes["n1"].bytes;
    assert!(size.abs_diff(spec.len()) < 1024, "{size} is not {}", spec.len());
    let (size, most) = (size / 1024, MOST_SPEC_BYTES / 1024);
    let programmed = Outcome {
        condition: "Programmed",
        holds: false,
        reason: "TooLarge".to_owned(),
        message: format!("0/1 nodes; waiting for: n1 (its policies take {size} KiB, of at most {most})"),
    };
    assert!(
        told.iter().all(|status| status.outcomes[1] == programmed),
        "{told:?}"
    );
    assert_eq!(told.len(), 5);
}

fn spec_of_blocks(count: usize) -> NetworkPolicySpec {
    let blocks: Vec<Value> = (0..count)
        .map(|index| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/24", index / 256, index % 256)}}))
        .collect();
    serde_json::from_value(json!({"podSelector": {}, "ingress": [{"from": blocks}]})).unwrap()
}

fn policy_of_blocks(count: usize) -> Policy {
    let reference = PolicyRef::network_policy("shop", "blocks");
    let (policy, problems) =
        weir_policy::lower::network_policy(reference, &Labels::new(), &spec_of_blocks(count));
    assert_eq!(problems, []);
    policy
}

/// Gives the policies the metadata that objects of an API server have.
fn write_down(simulation: &mut Simulation) {
    let names = simulation.cluster.snapshot.network_policies.keys().cloned();
    let written = names.map(|name| {
        let written = Written {
            uid: name.to_string(),
            generation: 1,
            ..Written::default()
        };
        (name, written)
    });
    simulation.cluster.network_policies = written.collect();
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

fn snapshot() -> Snapshot {
    let labels = |pairs: &[(&str, String)]| -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    };
    let mut snapshot = Snapshot::default();
    for index in 0..SIZE.nodes {
        snapshot.nodes.insert(format!("node-{index}"), Node::default());
    }
    for index in 0..NAMESPACES {
        let team = labels(&[("team", format!("team-{}", index % 10))]);
        snapshot.namespaces.insert(format!("ns-{index}"), team);
    }
    for index in 0..SIZE.pods {
        let address = format!("10.{}.{}.{}", index >> 16, (index >> 8) & 255, index & 255);
        let pod = Pod {
            labels: labels(&[
                ("app", format!("app-{}", (index / NAMESPACES) % 20)),
                ("pod-template-hash", format!("{index:x}")),
                ("job-id", index.to_string()),
            ]),
            node: format!("node-{}", index % SIZE.nodes),
            addresses: vec![address.parse().unwrap()],
            ..Pod::default()
        };
        let id = ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("pod-{index}"));
        snapshot.pods.insert(id, pod);
    }
    for index in 0..SIZE.policies {
        let spec: NetworkPolicySpec = serde_json::from_value(json!({
            "podSelector": {"matchLabels": {"app": format!("app-{}", (index / NAMESPACES) % 20)}},
            "ingress": [{
                "from": [
                    {"podSelector": {"matchLabels": {"app": format!("app-{}", (index + 7) % 20)}}},
                    {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", index % 10)}}},
                ],
                "ports": [{"port": 8080}, {"port": 9000, "endPort": 9100}],
            }],
        }))
        .unwrap();
        let id = ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("policy-{index}"));
        let policy = NetworkPolicy {
            annotations: Labels::new(),
            spec,
        };
        snapshot.network_policies.insert(id, policy);
    }
    snapshot
}
