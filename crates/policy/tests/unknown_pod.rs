//! A pod whose identity is not known yet is allowed what every pod is, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use weir_policy::arbitrary;
use weir_policy::cluster::Cluster;
use weir_policy::evaluate::{Facts, evaluate};
use weir_policy::identity::{IdentityKey, Relevance, keys};
use weir_policy::model::Protocol;
use weir_policy::resolved::{Flow, IdentityNumber, Resolved, UNKNOWN_POD, Verdict};
use weir_policy::snapshot::{
    ClusterNetworkPolicy, Labels, NamedPort, NetworkPolicy, ObjectName, Pod, PodId, Snapshot,
};
use weir_policy::{lower, resolve};

const NODE: &str = "node-1";

/// The policies of a cluster, resolved for one node, with every identity that another node's pod may turn out to have.
struct Node {
    cluster: Cluster,
    resolved: Resolved,
    identities: BTreeSet<IdentityNumber>,
}

impl Node {
    /// `strangers` are pods that nobody has told of yet.
    fn new(snapshot: Snapshot, strangers: &[(PodId, Pod)]) -> Self {
        let cluster = Cluster::new(snapshot);
        let lowered = lower(&cluster.snapshot);
        let relevance = Relevance::of(lowered.policies.values());
        let mut identities: BTreeSet<IdentityKey> = cluster.identities.keys().cloned().collect();
        let strange = strangers
            .iter()
            .filter_map(|(id, pod)| relevance.key(&cluster.snapshot, id, pod));
        identities.extend(strange);
        let identities: BTreeMap<IdentityKey, IdentityNumber> = identities.into_iter().zip(1..).collect();
        let local = keys(&relevance, &cluster.snapshot)
            .into_iter()
            .filter(|(id, _)| cluster.snapshot.pods[*id].node == NODE)
            .map(|(id, key)| (id.clone(), key))
            .collect();
        Self {
            resolved: resolve(&lowered.policies, &identities, &local),
            identities: identities.into_values().collect(),
            cluster,
        }
    }

    /// The verdicts on a flow whose ends on other nodes have this identity: egress and ingress, enforced and dry run.
    fn verdicts(&self, flow: &Flow, identity: IdentityNumber) -> [Option<Verdict>; 4] {
        let mut facts: Facts = self.cluster.facts(NODE, flow);
        for end in [&mut facts.source, &mut facts.destination] {
            if end.local.is_none() {
                end.identity = Some(identity);
            }
        }
        let answer = evaluate(&self.resolved, flow, &facts);
        let [egress, ingress] = [answer.egress, answer.ingress];
        [
            egress.map(|judgement| judgement.enforced.verdict),
            egress.map(|judgement| judgement.dry_run.verdict),
            ingress.map(|judgement| judgement.enforced.verdict),
            ingress.map(|judgement| judgement.dry_run.verdict),
        ]
    }
}

/// Pods with labels, namespaces and named ports of which some are those that policies look at.
fn strangers() -> impl Strategy<Value = Vec<(PodId, Pod)>> {
    let label = (
        select(&["app", "role", "team"][..]),
        select(&["x", "y", "z", "a", "b", "new"][..]),
    );
    let labels = proptest::collection::btree_map(label.0, label.1, 0..3);
    let port = (
        select(&["http", "dns", "metrics"][..]),
        select(&[53u16, 80, 8080][..]),
    );
    let ports = proptest::collection::vec(port, 0..3);
    let pod = (select(&["blue", "green", "red", "new"][..]), labels, ports);
    let stranger = pod.prop_map(|(namespace, labels, ports)| {
        let named = |(name, port): (&str, u16)| NamedPort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port,
        };
        let pod = Pod {
            labels: owned(&labels),
            node: "node-2".to_owned(),
            named_ports: ports.into_iter().map(named).collect(),
            ..Pod::default()
        };
        (PodId::new(namespace, "stranger"), pod)
    });
    proptest::collection::vec(stranger, 0..6)
}

fn owned(labels: &BTreeMap<&str, &str>) -> Labels {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn cases() -> impl Strategy<Value = (Snapshot, Vec<(PodId, Pod)>, Vec<Flow>)> {
    (arbitrary::snapshot(), strangers()).prop_flat_map(|(snapshot, strangers)| {
        let flows = arbitrary::some_flows(&snapshot, 150);
        (Just(snapshot), Just(strangers), flows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/unknown_pod.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_is_never_allowed_what_it_may_turn_out_to_be_denied((snapshot, strangers, flows) in cases()) {
        let node = Node::new(snapshot, &strangers);
        for flow in flows {
            let unknown = node.verdicts(&flow, UNKNOWN_POD);
            for &identity in &node.identities {
                let known = node.verdicts(&flow, identity);
                let is_closed = unknown
                    .iter()
                    .zip(&known)
                    .all(|(unknown, known)| *unknown != Some(Verdict::Allow) || *known == Some(Verdict::Allow));
                prop_assert!(is_closed, "{flow:?}: {unknown:?}, and {known:?} as {identity}");
            }
        }
    }
}

/// Whether each port of one of these numbers is open to the pod at 10.0.1.1 of which nobody has told.
fn is_open(policies: &[Value], ports: &[u16]) -> Vec<bool> {
    let mut snapshot = Snapshot {
        namespaces: [("blue".to_owned(), Labels::new())].into(),
        nodes: [(NODE.to_owned(), Default::default())].into(),
        ..Snapshot::default()
    };
    let local = Pod {
        node: NODE.to_owned(),
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        ..Pod::default()
    };
    snapshot.pods.insert(PodId::new("blue", "local"), local);
    for (index, policy) in policies.iter().enumerate() {
        let name = format!("policy-{index}");
        let annotations = Labels::new();
        let mut spec = policy.clone();
        if spec.get("tier").is_some() {
            spec["subject"] = json!({"namespaces": {}});
            let spec = serde_json::from_value(spec).expect("a ClusterNetworkPolicy");
            let policy = ClusterNetworkPolicy { annotations, spec };
            snapshot.cluster_network_policies.insert(name, policy);
        } else {
            spec["podSelector"] = json!({});
            let spec = serde_json::from_value(spec).expect("a NetworkPolicy");
            let policy = NetworkPolicy { annotations, spec };
            snapshot
                .network_policies
                .insert(ObjectName::new("blue", name), policy);
        }
    }
    let node = Node::new(snapshot, &[]);
    let allowed = |port: &u16| {
        let flow = Flow {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 1, 1].into(),
            protocol: 6,
            destination_port: *port,
        };
        let [enforced, dry_run, ..] = node.verdicts(&flow, UNKNOWN_POD);
        assert_eq!(enforced, dry_run);
        enforced == Some(Verdict::Allow)
    };
    ports.iter().map(allowed).collect()
}

fn admin(rules: &Value) -> Value {
    json!({"tier": "Admin", "priority": 1, "egress": rules})
}

fn baseline(rules: &Value) -> Value {
    json!({"tier": "Baseline", "priority": 1, "egress": rules})
}

fn to_pods(action: &str) -> Value {
    json!({"action": action, "to": [{"pods": {"podSelector": {"matchLabels": {"app": "x"}}}}]})
}

fn to_networks(action: &str, network: &str) -> Value {
    json!({"action": action, "to": [{"networks": [network]}]})
}

fn isolation() -> Value {
    json!({"policyTypes": ["Egress"]})
}

#[test]
fn a_deny_by_label_denies_and_an_accept_by_label_does_not_accept() {
    assert_eq!(is_open(&[], &[80]), [true]);
    assert_eq!(is_open(&[admin(&json!([to_pods("Deny")]))], &[80]), [false]);
    assert_eq!(is_open(&[baseline(&json!([to_pods("Deny")]))], &[80]), [false]);
    assert_eq!(is_open(&[admin(&json!([to_pods("Accept")]))], &[80]), [true]);
    assert_eq!(
        is_open(&[admin(&json!([to_pods("Accept")])), isolation()], &[80]),
        [false]
    );
}

#[test]
fn its_address_counts_as_any_pods() {
    let block =
        json!({"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}]});
    assert_eq!(is_open(&[block], &[80]), [true]);
    let accepted_before = json!([to_networks("Accept", "10.0.1.0/24"), to_pods("Deny")]);
    assert_eq!(is_open(&[admin(&accepted_before)], &[80]), [true]);
    let accepted_after = json!([to_pods("Deny"), to_networks("Accept", "10.0.1.0/24")]);
    assert_eq!(is_open(&[admin(&accepted_after)], &[80]), [false]);
}

#[test]
fn what_is_said_of_all_pods_is_said_of_it() {
    let all = json!({"policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]});
    assert_eq!(is_open(&[all], &[80]), [true]);
    let own_namespace = json!({"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]});
    assert_eq!(is_open(&[own_namespace], &[80]), [false]);
    let accept = json!({"action": "Accept", "to": [{"namespaces": {}}]});
    assert_eq!(is_open(&[admin(&json!([accept])), isolation()], &[80]), [true]);
}

#[test]
fn a_pass_by_label_leads_to_what_is_worse() {
    let accept = to_networks("Accept", "0.0.0.0/0");
    let deny = to_networks("Deny", "0.0.0.0/0");
    // Where it does not match, the tier accepts; where it does, the NetworkPolicies decide.
    assert_eq!(
        is_open(&[admin(&json!([to_pods("Pass"), accept]))], &[80]),
        [true]
    );
    assert_eq!(
        is_open(&[admin(&json!([to_pods("Pass"), accept])), isolation()], &[80]),
        [false]
    );
    // Where it does not match, the tier denies.
    assert_eq!(is_open(&[admin(&json!([to_pods("Pass"), deny]))], &[80]), [false]);
    // In the Baseline tier it leads to the default.
    assert_eq!(is_open(&[baseline(&json!([to_pods("Pass")]))], &[80]), [true]);
    assert_eq!(
        is_open(&[baseline(&json!([to_pods("Pass"), deny]))], &[80]),
        [false]
    );
}

#[test]
fn a_denied_name_may_be_any_port_and_an_accepted_one_none() {
    let named = |action: &str| {
        let mut rule = to_networks(action, "0.0.0.0/0");
        rule["to"] = json!([{"namespaces": {}}]);
        rule["protocols"] = json!([{"destinationNamedPort": "http"}]);
        rule
    };
    assert_eq!(
        is_open(&[admin(&json!([named("Deny")]))], &[80, 8080]),
        [false, false]
    );
    assert_eq!(
        is_open(&[admin(&json!([named("Accept")])), isolation()], &[80]),
        [false]
    );
}

#[test]
fn only_the_ports_of_a_deny_are_denied() {
    let mut deny = to_pods("Deny");
    deny["protocols"] = json!([{"tcp": {"destinationPort": {"number": 80}}}]);
    assert_eq!(is_open(&[admin(&json!([deny]))], &[80, 443]), [false, true]);
}
