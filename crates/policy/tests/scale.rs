//! Policies by the thousand resolve without any step growing with the square of something.
//!
//! Nothing is timed: a step that does grow so makes these tests run for minutes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_policy::cluster::{Cluster, is_accepted};
use weir_policy::oracle;
use weir_policy::resolved::{Flow, Verdict};
use weir_policy::snapshot::{NetworkPolicy, Node, ObjectName, Pod, Snapshot};

const NAMESPACES: u32 = 20;
const IDENTITIES_A_NAMESPACE: u32 = 15;
const POLICIES: u32 = 10_000;
const RULES: u32 = 100_000;

#[test]
fn ten_thousand_policies_and_three_hundred_identities() {
    let mut snapshot = pods(NAMESPACES, IDENTITIES_A_NAMESPACE);
    for index in 0..POLICIES {
        let id = ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("policy-{index:05}"));
        let app = |app: u32| selector("app", &format!("app-{}", app % IDENTITIES_A_NAMESPACE));
        let from = NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector::default()),
            pod_selector: Some(app(index / 7)),
            ip_block: None,
        };
        let spec = NetworkPolicySpec {
            pod_selector: Some(app(index / NAMESPACES)),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(vec![from]),
                ports: Some(vec![port(1 + i32::try_from(index).expect("small"))]),
            }]),
            ..NetworkPolicySpec::default()
        };
        snapshot.network_policies.insert(
            id,
            NetworkPolicy {
                annotations: BTreeMap::new(),
                spec,
            },
        );
    }
    let cluster = Cluster::new(snapshot);
    assert_eq!(cluster.lowered.problems, []);
    assert_eq!(
        cluster.identities.len(),
        (NAMESPACES * IDENTITIES_A_NAMESPACE) as usize
    );
    let sets = cluster.resolved["node"].sets.len();
    assert_eq!(
        sets,
        (NAMESPACES * IDENTITIES_A_NAMESPACE) as usize,
        "each identity has policies of its own"
    );
    judge_some(&cluster, "10.0.0.1", 6);
}

#[test]
fn ten_thousand_policies_of_the_same_pods() {
    let mut snapshot = pods(NAMESPACES, IDENTITIES_A_NAMESPACE);
    for index in 0..POLICIES {
        let from = NetworkPolicyPeer {
            namespace_selector: Some(selector(
                "kubernetes.io/metadata.name",
                &format!("ns-{}", index % NAMESPACES),
            )),
            pod_selector: Some(selector(
                "app",
                &format!("app-{}", index / 3 % IDENTITIES_A_NAMESPACE),
            )),
            ip_block: None,
        };
        let rule = NetworkPolicyIngressRule {
            from: Some(vec![from]),
            ports: Some(vec![port(1 + i32::try_from(index).expect("small"))]),
        };
        let spec = NetworkPolicySpec {
            ingress: Some(vec![rule]),
            ..NetworkPolicySpec::default()
        };
        let policy = NetworkPolicy {
            annotations: BTreeMap::new(),
            spec,
        };
        snapshot
            .network_policies
            .insert(ObjectName::new("ns-0", format!("policy-{index:05}")), policy);
    }
    let cluster = Cluster::new(snapshot);
    assert_eq!(cluster.resolved["node"].sets.len(), 1);
    judge_some(&cluster, "10.0.5.3", 6);
}

#[test]
fn one_policy_of_a_hundred_thousand_blocks_in_a_rule_each() {
    let rules = (0..RULES).map(|index| NetworkPolicyEgressRule {
        to: Some(vec![block(&address(index), 32)]),
        ports: Some(vec![port(1 + i32::try_from(index % 65_535).expect("small"))]),
    });
    let cluster = Cluster::new(with_egress(rules.collect()));
    assert_eq!(cluster.lowered.problems, []);
    let resolved = &cluster.resolved["node"];
    assert_eq!(resolved.cidrs.len(), RULES as usize);
    assert_eq!(resolved.sets[0].egress.cidrs.len(), RULES as usize);
    let flow = |index: u32, port| Flow {
        source: "10.0.0.1".parse().expect("an address"),
        destination: address(index).parse().expect("an address"),
        protocol: 6,
        destination_port: port,
    };
    assert_eq!(verdict(&cluster, &flow(77_777, 12_243)), Verdict::Allow);
    assert_eq!(verdict(&cluster, &flow(77_777, 12_244)), Verdict::Deny);
}

#[test]
fn one_rule_of_a_hundred_thousand_blocks_inside_a_block_with_exceptions() {
    let mut peers: Vec<NetworkPolicyPeer> = (0..RULES).map(|index| block(&address(index), 32)).collect();
    let except = (0..RULES / 2).map(|index| format!("{}/32", address(index * 2)));
    let around = IPBlock {
        cidr: "32.0.0.0/3".to_owned(),
        except: Some(except.collect()),
    };
    peers.push(NetworkPolicyPeer {
        ip_block: Some(around),
        ..NetworkPolicyPeer::default()
    });
    let rule = NetworkPolicyEgressRule {
        to: Some(peers),
        ports: None,
    };
    let cluster = Cluster::new(with_egress(vec![rule]));
    assert_eq!(cluster.lowered.problems, []);
    judge_some(&cluster, "32.0.0.10", 6);
}

#[test]
fn one_policy_of_a_hundred_thousand_port_rules() {
    let rules = (0..RULES).map(|index| NetworkPolicyEgressRule {
        to: None,
        ports: Some(vec![port(1 + i32::try_from(index % 65_535).expect("small"))]),
    });
    let cluster = Cluster::new(with_egress(rules.collect()));
    let table = cluster.resolved["node"]
        .port_tables
        .iter()
        .map(|table| table.prefixes.len())
        .max();
    assert_eq!(table, Some(65_535), "each port has a rule of its own");
    judge_some(&cluster, "192.0.2.1", 17);
}

#[test]
fn more_pods_of_the_same_kind_add_nothing_but_their_names() {
    let mut snapshot = pods(1, 1);
    let policy = NetworkPolicy {
        annotations: BTreeMap::new(),
        spec: NetworkPolicySpec::default(),
    };
    snapshot
        .network_policies
        .insert(ObjectName::new("ns-0", "closed"), policy);
    let one = Cluster::new(snapshot.clone()).resolved["node"].clone();
    for index in 0..1000 {
        let pod = snapshot.pods[&ObjectName::new("ns-0", "pod-0")].clone();
        snapshot
            .pods
            .insert(ObjectName::new("ns-0", format!("copy-{index}")), pod);
    }
    let many = Cluster::new(snapshot).resolved["node"].clone();
    assert_eq!(many.pods.len(), 1001);
    assert_eq!(
        (many.sets, many.causes, many.port_tables),
        (one.sets, one.causes, one.port_tables)
    );
}

fn pods(namespaces: u32, identities_each: u32) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.nodes.insert("node".to_owned(), Node::default());
    for namespace in 0..namespaces {
        for index in 0..identities_each {
            let pod = Pod {
                labels: BTreeMap::from([("app".to_owned(), format!("app-{index}"))]),
                node: "node".to_owned(),
                addresses: vec![
                    format!("10.0.{namespace}.{}", index + 1)
                        .parse()
                        .expect("an address"),
                ],
                ..Pod::default()
            };
            snapshot.pods.insert(
                ObjectName::new(format!("ns-{namespace}"), format!("pod-{index}")),
                pod,
            );
        }
    }
    snapshot
}

fn with_egress(rules: Vec<NetworkPolicyEgressRule>) -> Snapshot {
    let mut snapshot = pods(2, 2);
    let spec = NetworkPolicySpec {
        egress: Some(rules),
        ..NetworkPolicySpec::default()
    };
    let policy = NetworkPolicy {
        annotations: BTreeMap::new(),
        spec,
    };
    snapshot
        .network_policies
        .insert(ObjectName::new("ns-0", "large"), policy);
    snapshot
}

/// The addresses of 32.0.0.0/3, one after the other.
fn address(index: u32) -> String {
    std::net::Ipv4Addr::from((32 << 24) + index).to_string()
}

fn block(address: &str, len: u8) -> NetworkPolicyPeer {
    let cidr = IpNet::new(address.parse().expect("an address"), len)
        .expect("a prefix length")
        .to_string();
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr, except: None }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        ..NetworkPolicyPort::default()
    }
}

fn selector(key: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}

fn verdict(cluster: &Cluster, flow: &Flow) -> Verdict {
    cluster
        .answer(flow)
        .egress
        .expect("the source is a pod")
        .enforced
        .verdict
}

/// The oracle is asked of a few flows only: it reads every policy for each.
fn judge_some(cluster: &Cluster, peer: &str, protocol: u8) {
    for (pod, port) in [("10.0.0.1", 15), ("10.0.0.2", 301), ("10.0.1.1", 6001)] {
        for (source, destination) in [(pod, peer), (peer, pod)] {
            let flow = Flow {
                source: source.parse().expect("an address"),
                destination: destination.parse().expect("an address"),
                protocol,
                destination_port: port,
            };
            let (answer, expected) = (cluster.answer(&flow), oracle::answer(&cluster.snapshot, &flow));
            assert!(
                is_accepted(&answer, &expected),
                "{flow:?}: {answer:?} {expected:?}"
            );
        }
    }
}
