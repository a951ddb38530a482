//! Changes that a transition could get wrong, one by one.

use std::collections::BTreeMap;

use weir_abi::event::side_verdict;
use weir_agent::contents::Contents;
use weir_agent::sync::Sync;
use weir_policy::resolved::Flow;
use weir_policy::snapshot::{ClusterNetworkPolicy, Labels, NetworkPolicy, ObjectName, Pod, PodId, Snapshot};

use crate::NODE;
use crate::judging::cluster::{NODES, World, desired_for};
use crate::judging::host::{address, sides};
use crate::watch::watch;

/// Two pods change places and their peer its name, so that each may be spoken to before and after: by the old name
/// under the one policy, by the new name under the other.
#[test]
fn two_pods_change_places_while_their_peer_changes_its_name() {
    let places = |q: &str, r: &str, peer: &str| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", q)),
            pod("r", NODE, "10.0.0.2", ("role", r)),
            pod("peer", NODES[1], "10.0.1.1", ("app", peer)),
            // Both names stay in use.
            pod("other-x", NODES[1], "10.0.1.2", ("app", "x")),
            pod("other-y", NODES[1], "10.0.1.3", ("app", "y")),
        ];
        cluster(
            pods.into(),
            [admits("one", "a", "x"), admits("two", "b", "y")].into(),
        )
    };
    passes(
        &places("a", "b", "x"),
        &places("b", "a", "y"),
        &[
            (flow("10.0.1.1", "10.0.0.1"), [side_verdict::ALLOW; 2]),
            (flow("10.0.1.1", "10.0.0.2"), [side_verdict::DENY; 2]),
        ],
    );
}

/// A peer takes a name that another one has all the time, and that no policy admits.
#[test]
fn a_peer_takes_the_name_of_another() {
    let named = |peer: &str, admitted: &str| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", peer)),
            pod("other", NODES[1], "10.0.1.2", ("app", "y")),
            pod("third", NODES[1], "10.0.1.3", ("app", "x")),
        ];
        cluster(pods.into(), [admits("one", "a", admitted)].into())
    };
    passes(
        &named("x", "x"),
        &named("y", "z"),
        &[
            (
                flow("10.0.1.1", "10.0.0.1"),
                [side_verdict::ALLOW, side_verdict::DENY],
            ),
            (flow("10.0.1.2", "10.0.0.1"), [side_verdict::DENY; 2]),
        ],
    );
}

/// All of IPv4 is admitted by its CIDR, and then one peer by its name; a CIDR of IPv6 stays.
#[test]
fn the_cidr_of_all_ipv4_addresses_goes() {
    let reaches = |to: serde_json::Value| {
        let spec = serde_json::json!({
            "podSelector": { "matchLabels": { "role": "a" } },
            "policyTypes": ["Egress"],
            "egress": [{ "to": [to, { "ipBlock": { "cidr": "fd00::/16" } }] }],
        });
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", "x")),
        ];
        cluster(pods.into(), [network_policy("one", spec)].into())
    };
    let by_cidr = reaches(serde_json::json!({ "ipBlock": { "cidr": "0.0.0.0/0" } }));
    let by_name = reaches(serde_json::json!({ "podSelector": { "matchLabels": { "app": "x" } } }));
    let flows = [(flow("10.0.0.1", "10.0.1.1"), [side_verdict::ALLOW; 2])];
    passes(&by_cidr, &by_name, &flows);
    passes(&by_name, &by_cidr, &flows);
}

/// A peer gets a name that the policy accepts and an address block that it denies, and the block's rule comes first.
#[test]
fn a_peer_changes_its_name_and_its_cidr_at_once() {
    let accept = |app: &str| {
        let peers = serde_json::json!([{ "pods": { "podSelector": { "matchLabels": { "app": app } } } }]);
        serde_json::json!({ "action": "Accept", "to": peers })
    };
    let deny = serde_json::json!({ "action": "Deny", "to": [{ "networks": ["10.0.1.0/24"] }] });
    let named = |app: &str, rules: &[&serde_json::Value]| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", app)),
            pod("other", NODES[1], "10.0.2.1", ("app", "z")),
        ];
        let isolation = serde_json::json!({ "podSelector": {}, "policyTypes": ["Egress"] });
        let mut world = cluster(pods.into(), [network_policy("isolation", isolation)].into());
        let spec = serde_json::json!({
            "tier": "Admin",
            "priority": 1,
            "subject": { "pods": { "podSelector": { "matchLabels": { "role": "a" } } } },
            "egress": rules,
        });
        let policy = ClusterNetworkPolicy {
            annotations: Labels::new(),
            spec: serde_json::from_value(spec).expect("a policy"),
        };
        let policies = &mut world.snapshot.cluster_network_policies;
        policies.insert("admin".to_owned(), policy);
        world
    };
    passes(
        &named("x", &[&accept("z")]),
        &named("y", &[&accept("z"), &deny, &accept("y")]),
        &[(flow("10.0.0.1", "10.0.1.1"), [side_verdict::DENY; 2])],
    );
}

/// From one cluster to the other, with the verdicts that the flows have in the first and in the second.
fn passes(one: &World, other: &World, flows: &[(Flow, [u8; 2])]) {
    let first = desired_for(one, NODE, &Contents::default()).contents;
    let second = desired_for(other, NODE, &first);
    for (flow, verdicts) in flows {
        let verdict = |contents: &Contents| {
            let sides = sides(contents, flow);
            sides.egress.or(sides.ingress).map(|side| side.verdict)
        };
        let both = [verdict(&first), verdict(&second.contents)];
        assert_eq!(both, verdicts.map(Some), "{flow:?}");
    }
    let flows: Vec<Flow> = flows.iter().map(|(flow, _)| flow.clone()).collect();
    let contents = watch(&mut Sync::default(), &first, &second, &[&first], &flows);
    assert_eq!(contents.expect("before or after"), second.contents);
}

fn cluster(pods: BTreeMap<PodId, Pod>, network_policies: BTreeMap<ObjectName, NetworkPolicy>) -> World {
    World {
        snapshot: Snapshot {
            namespaces: [("blue".to_owned(), Labels::new())].into(),
            pods,
            network_policies,
            ..Snapshot::default()
        },
        services: Vec::new(),
        has_pod_ranges: false,
    }
}

fn flow(from: &str, to: &str) -> Flow {
    Flow {
        source: address(from),
        destination: address(to),
        protocol: 6,
        destination_port: 80,
    }
}

fn pod(name: &str, node: &str, ip: &str, (key, value): (&str, &str)) -> (PodId, Pod) {
    let pod = Pod {
        labels: [(key.to_owned(), value.to_owned())].into(),
        node: node.to_owned(),
        addresses: vec![address(ip)],
        ..Pod::default()
    };
    (PodId::new("blue", name), pod)
}

/// The pods of this role may be spoken to by those of this app only.
fn admits(name: &str, role: &str, app: &str) -> (ObjectName, NetworkPolicy) {
    let spec = serde_json::json!({
        "podSelector": { "matchLabels": { "role": role } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }],
    });
    network_policy(name, spec)
}

fn network_policy(name: &str, spec: serde_json::Value) -> (ObjectName, NetworkPolicy) {
    let policy = NetworkPolicy {
        annotations: Labels::new(),
        spec: serde_json::from_value(spec).expect("a policy"),
    };
    (ObjectName::new("blue", name), policy)
}
