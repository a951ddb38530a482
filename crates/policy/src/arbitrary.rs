//! Generators of snapshots and flows for property tests.
//!
//! The world is small on purpose: few namespaces, labels, addresses and ports, so that policies meet pods, CIDRs lie
//! in one another, and rules collide. Some parts are malformed, as people's objects are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select, subsequence};
use weir_api::cluster_network_policy as cnp;

use crate::lower::DRY_RUN_ANNOTATION;
use crate::model::Protocol;
use crate::resolved::Flow;
use crate::snapshot::{
    ClusterNetworkPolicy, Labels, NamedPort, NetworkPolicy, Node, ObjectName, Pod, PodId, Snapshot,
};

const NAMESPACES: [&str; 3] = ["blue", "green", "red"];
const NODES: [&str; 2] = ["node-1", "node-2"];
const MAX_PODS: usize = 7;

/// Addresses that belong to nothing in the cluster; two of them lie in the pods' own ranges.
const STRANGERS: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.200",
    "198.51.100.7",
    "10.0.0.77",
    "2001:db8::1",
    "fd00::1:0:0:0:77",
];

const CIDRS: [&str; 22] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.2/31",
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.1.0/24",
    "10.0.1.4/32",
    "10.9.0.0/16",
    "10.9.0.1/32",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "::/0",
    "fd00::/16",
    "fd00:0:0:1::/64",
    "fd00:0:0:1::/126",
    "fd00:0:0:1::2/128",
    "fd00:9::/32",
    "2001:db8::/32",
    "10.0.0.3/24",
];

const BROKEN_CIDRS: [&str; 5] = ["10.0.0.0/33", "10.0.0.1", "ten/8", "", "::ffff:10.0.0.0/120"];

const PORTS: [u16; 9] = [1, 53, 79, 80, 81, 443, 8080, 9090, 65535];
const PORT_NAMES: [&str; 3] = ["http", "dns", "metrics"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A cluster with nodes, pods and policies of both kinds.
pub fn snapshot() -> impl Strategy<Value = Snapshot> {
    let namespaces = vec(labels(&["team", "env"]), NAMESPACES.len());
    let pods = vec((any::<Index>(), pod()), 2..=MAX_PODS);
    let network_policies = btree_map(object_name(), network_policy(), 0..5);
    let cluster_network_policies = btree_map(policy_name(), cluster_network_policy(), 0..5);
    (namespaces, pods, network_policies, cluster_network_policies).prop_map(
        |(namespaces, pods, network_policies, cluster_network_policies)| Snapshot {
            namespaces: NAMESPACES
                .map(str::to_owned)
                .into_iter()
                .zip(namespaces)
                .collect(),
            pods: pods
                .into_iter()
                .enumerate()
                .map(|(index, (place, pod))| placed(index, place, pod))
                .collect(),
            nodes: nodes(),
            network_policies,
            cluster_network_policies,
            flow_log_policies: BTreeMap::new(),
        },
    )
}

/// A number of the [`flows`].
pub fn some_flows(snapshot: &Snapshot, count: usize) -> impl Strategy<Value = Vec<Flow>> + use<> {
    vec(select(flows(snapshot)), count)
}

/// Flows between two addresses of one family of which a pod has at least one, for each kind of protocol and port that
/// can make a difference.
#[must_use]
pub fn flows(snapshot: &Snapshot) -> Vec<Flow> {
    let pods: BTreeSet<IpAddr> = snapshot
        .pods
        .values()
        .flat_map(|pod| &pod.addresses)
        .copied()
        .collect();
    let addresses = addresses(snapshot);
    let pairs = addresses
        .iter()
        .flat_map(|source| addresses.iter().map(move |destination| (source, destination)));
    let pairs = pairs.filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    let pairs = pairs.filter(|(source, destination)| pods.contains(source) || pods.contains(destination));
    pairs
        .flat_map(|(source, destination)| flows_between(*source, *destination))
        .collect()
}

fn flows_between(source: IpAddr, destination: IpAddr) -> impl Iterator<Item = Flow> {
    let flow = move |protocol, destination_port| Flow {
        source,
        destination,
        protocol,
        destination_port,
    };
    let icmp = flow(if source.is_ipv4() { 1 } else { 58 }, 0);
    let with_ports = PROTOCOLS.into_iter().flat_map(move |protocol| {
        let ports = PORTS.into_iter().chain([0, 2, 82, 8081, 40_000]);
        ports.map(move |port| flow(protocol.number(), port))
    });
    std::iter::once(icmp).chain(with_ports)
}

fn addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let pods = snapshot.pods.values().flat_map(|pod| &pod.addresses);
    let nodes = snapshot.nodes.values().flat_map(|node| &node.addresses);
    let strangers = STRANGERS.iter().filter_map(|address| address.parse().ok());
    pods.chain(nodes).copied().chain(strangers).collect()
}

fn nodes() -> BTreeMap<String, Node> {
    let node = |(index, name): (usize, &&str)| {
        let addresses = [format!("10.9.0.{}", index + 1), format!("fd00:9::{}", index + 1)];
        let addresses = addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        (
            (*name).to_owned(),
            Node {
                labels: Labels::new(),
                addresses,
            },
        )
    };
    NODES.iter().enumerate().map(node).collect()
}

/// Gives a pod its name, and its addresses: those of its node's range, or its node's own.
fn placed(index: usize, place: Index, mut pod: Pod) -> (PodId, Pod) {
    let node = place.index(NODES.len());
    let namespace = NAMESPACES[place.index(NAMESPACES.len() * NODES.len()) % NAMESPACES.len()];
    let host = index + 1;
    let addresses = if pod.host_network {
        [format!("10.9.0.{}", node + 1), format!("fd00:9::{}", node + 1)]
    } else {
        [
            format!("10.0.{node}.{host}"),
            format!("fd00:0:0:{}::{host}", node + 1),
        ]
    };
    pod.node = NODES[node].to_owned();
    pod.addresses = addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    (ObjectName::new(namespace, format!("pod-{index}")), pod)
}

fn pod() -> impl Strategy<Value = Pod> {
    let flag = |weight| proptest::bool::weighted(weight);
    (
        labels(&["app", "tier"]),
        vec(named_port(), 0..4),
        flag(0.12),
        flag(0.08),
    )
        .prop_map(|(labels, named_ports, host_network, terminated)| Pod {
            labels,
            named_ports,
            host_network,
            terminated,
            ..Pod::default()
        })
}

fn named_port() -> impl Strategy<Value = NamedPort> {
    (
        select(&PORT_NAMES[..]),
        select(&PROTOCOLS[..]),
        select(&PORTS[..]),
    )
        .prop_map(|(name, protocol, port)| NamedPort {
            name: name.to_owned(),
            protocol,
            port,
        })
}

fn labels(keys: &'static [&'static str]) -> impl Strategy<Value = Labels> {
    let label = (select(keys), select(&["x", "y"][..]));
    btree_map(
        label.clone().prop_map(|(key, _)| key.to_owned()),
        label.prop_map(|(_, value)| value.to_owned()),
        0..3,
    )
}

fn policy_name() -> impl Strategy<Value = String> {
    select(&["alpha", "beta", "gamma", "delta", "epsilon", "zeta"][..]).prop_map(str::to_owned)
}

fn object_name() -> impl Strategy<Value = ObjectName> {
    (select(&NAMESPACES[..]), policy_name()).prop_map(|(namespace, name)| ObjectName::new(namespace, name))
}

/// Few policies are in dry run, and some annotations are wrong.
fn annotations() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![16 => Just(None), 5 => Just(Some("true")), 1 => Just(Some("false")), 1 => Just(Some("yes"))];
    value.prop_map(|value| {
        value
            .into_iter()
            .map(|value| (DRY_RUN_ANNOTATION.to_owned(), value.to_owned()))
            .collect()
    })
}

fn network_policy() -> impl Strategy<Value = NetworkPolicy> {
    (annotations(), network_policy_spec()).prop_map(|(annotations, spec)| NetworkPolicy { annotations, spec })
}

fn network_policy_spec() -> impl Strategy<Value = NetworkPolicySpec> {
    let types = prop_oneof![
        4 => Just(None),
        8 => subsequence(vec!["Ingress".to_owned(), "Egress".to_owned()], 0..=2).prop_map(Some),
        1 => Just(Some(vec!["ingress".to_owned()])),
    ];
    let ingress = (of(vec(peer(), 0..3)), of(vec(port(), 0..3)))
        .prop_map(|(from, ports)| NetworkPolicyIngressRule { from, ports });
    let egress = (of(vec(peer(), 0..3)), of(vec(port(), 0..3)))
        .prop_map(|(to, ports)| NetworkPolicyEgressRule { to, ports });
    (
        of(selector(&["app", "tier"])),
        types,
        of(vec(ingress, 0..4)),
        of(vec(egress, 0..4)),
    )
        .prop_map(
            |(pod_selector, policy_types, ingress, egress)| NetworkPolicySpec {
                pod_selector,
                policy_types,
                ingress,
                egress,
            },
        )
}

fn peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let pods = (of(selector(&["app", "tier"])), of(selector(&["team", "env"]))).prop_map(
        |(pod_selector, namespace_selector)| NetworkPolicyPeer {
            pod_selector,
            namespace_selector,
            ip_block: None,
        },
    );
    let block = ip_block().prop_map(|block| NetworkPolicyPeer {
        ip_block: Some(block),
        ..NetworkPolicyPeer::default()
    });
    let both = (ip_block(), selector(&["app"])).prop_map(|(block, pods)| NetworkPolicyPeer {
        ip_block: Some(block),
        pod_selector: Some(pods),
        namespace_selector: None,
    });
    prop_oneof![12 => pods, 12 => block, 1 => both]
}

fn ip_block() -> impl Strategy<Value = IPBlock> {
    (cidr(), of(vec(cidr(), 0..4))).prop_map(|(cidr, except)| IPBlock { cidr, except })
}

fn cidr() -> impl Strategy<Value = String> {
    prop_oneof![40 => select(&CIDRS[..]), 1 => select(&BROKEN_CIDRS[..])].prop_map(str::to_owned)
}

fn port() -> impl Strategy<Value = NetworkPolicyPort> {
    let number = || select(&PORTS[..]).prop_map(i32::from);
    let places = prop_oneof![
        3 => Just((None, None)),
        8 => number().prop_map(|port| (Some(IntOrString::Int(port)), None)),
        6 => (number(), number()).prop_map(|(one, two)| {
            (Some(IntOrString::Int(one.min(two))), Some(one.max(two)))
        }),
        6 => select(&PORT_NAMES[..]).prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
        1 => (number(), number()).prop_map(|(one, two)| (Some(IntOrString::Int(one)), Some(two))),
        1 => select(&[0, -1, 65536][..]).prop_map(|port| (Some(IntOrString::Int(port)), None)),
        1 => number().prop_map(|end| (Some(IntOrString::String("http".to_owned())), Some(end))),
        1 => number().prop_map(|end| (None, Some(end))),
        1 => Just((Some(IntOrString::String("80".to_owned())), None)),
    ];
    let protocol = prop_oneof![
        6 => Just(None),
        12 => select(&["TCP", "UDP", "SCTP"][..]).prop_map(Some),
        1 => Just(Some("tcp")),
    ];
    (places, protocol).prop_map(|((port, end_port), protocol)| NetworkPolicyPort {
        port,
        end_port,
        protocol: protocol.map(str::to_owned),
    })
}

fn selector(keys: &'static [&'static str]) -> impl Strategy<Value = LabelSelector> {
    let expression = (
        select(keys),
        select(&["In", "NotIn"][..]),
        vec(select(&["x", "y"][..]), 1..3),
    )
        .prop_map(|(key, operator, values)| requirement(key, operator, &values));
    let existence = (select(keys), select(&["Exists", "DoesNotExist"][..]))
        .prop_map(|(key, operator)| requirement(key, operator, &[]));
    let broken = prop_oneof![
        Just(requirement("app", "in", &["x"])),
        Just(requirement("app", "In", &[])),
        Just(requirement("app", "Exists", &["x"])),
        Just(requirement("-app", "Exists", &[])),
        Just(requirement("app", "NotIn", &["not a value"])),
    ];
    let requirement = prop_oneof![30 => expression, 20 => existence, 1 => broken];
    let match_labels = prop_oneof![2 => Just(None), 1 => labels(keys).prop_map(Some)];
    (match_labels, weighted(0.4, vec(requirement, 0..3))).prop_map(|(match_labels, match_expressions)| {
        LabelSelector {
            match_expressions,
            match_labels,
        }
    })
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().map(|&value| value.to_owned()).collect()),
    }
}

fn cluster_network_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    (annotations(), cluster_network_policy_spec())
        .prop_map(|(annotations, spec)| ClusterNetworkPolicy { annotations, spec })
}

fn cluster_network_policy_spec() -> impl Strategy<Value = cnp::ClusterNetworkPolicySpec> {
    let tier = select(&[cnp::Tier::Admin, cnp::Tier::Baseline][..]);
    let priority = select(&[0, 1, 1, 7, 1000][..]);
    let ingress = vec(ingress_rule(), 0..4);
    let egress = vec(egress_rule(), 0..4);
    (tier, priority, cluster_subject(), ingress, egress).prop_map(
        |(tier, priority, subject, ingress, egress)| cnp::ClusterNetworkPolicySpec {
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}

fn cluster_subject() -> impl Strategy<Value = cnp::Subject> {
    let subject = |namespaces, pods| cnp::Subject { namespaces, pods };
    prop_oneof![
        20 => selector(&["team", "env"]).prop_map(move |namespaces| subject(Some(namespaces), None)),
        20 => namespaced_pod().prop_map(move |pods| subject(None, Some(pods))),
        1 => (selector(&["team"]), namespaced_pod()).prop_map(move |(one, two)| subject(Some(one), Some(two))),
        1 => Just(subject(None, None)),
    ]
}

fn namespaced_pod() -> impl Strategy<Value = cnp::NamespacedPod> {
    (of(selector(&["team", "env"])), selector(&["app", "tier"])).prop_map(
        |(namespace_selector, pod_selector)| cnp::NamespacedPod {
            namespace_selector,
            pod_selector,
        },
    )
}

fn action() -> impl Strategy<Value = cnp::RuleAction> {
    select(
        &[
            cnp::RuleAction::Accept,
            cnp::RuleAction::Deny,
            cnp::RuleAction::Pass,
        ][..],
    )
}

fn rule_name() -> impl Strategy<Value = Option<String>> {
    of(select(&["first", "second"][..]).prop_map(str::to_owned))
}

fn ingress_rule() -> impl Strategy<Value = cnp::IngressRule> {
    let peer = |namespaces, pods| cnp::IngressPeer { namespaces, pods };
    let peers = prop_oneof![
        20 => selector(&["team", "env"]).prop_map(move |namespaces| peer(Some(namespaces), None)),
        20 => namespaced_pod().prop_map(move |pods| peer(None, Some(pods))),
        1 => Just(peer(None, None)),
    ];
    (rule_name(), action(), peers_of(peers), protocols()).prop_map(|(name, action, from, protocols)| {
        cnp::IngressRule {
            name,
            action,
            from,
            protocols,
        }
    })
}

fn egress_rule() -> impl Strategy<Value = cnp::EgressRule> {
    let none = cnp::EgressPeer::default;
    let networks = prop_oneof![30 => vec(cidr(), 1..4), 1 => vec(cidr(), 0..1)];
    let peers = prop_oneof![
        20 => selector(&["team", "env"]).prop_map(move |it| cnp::EgressPeer { namespaces: Some(it), ..none() }),
        20 => namespaced_pod().prop_map(move |it| cnp::EgressPeer { pods: Some(it), ..none() }),
        30 => networks.prop_map(move |it| cnp::EgressPeer {
            networks: Some(it.into_iter().map(cnp::Cidr).collect()),
            ..none()
        }),
        1 => selector(&["team"]).prop_map(move |it| cnp::EgressPeer { nodes: Some(it), ..none() }),
        1 => Just(cnp::EgressPeer {
            domain_names: Some(vec![cnp::DomainName("weir.dev".to_owned())]),
            ..none()
        }),
        1 => Just(none()),
    ];
    (rule_name(), action(), peers_of(peers), protocols()).prop_map(|(name, action, to, protocols)| {
        cnp::EgressRule {
            name,
            action,
            to,
            protocols,
        }
    })
}

/// One to three peers, and hardly ever none.
fn peers_of<P: std::fmt::Debug>(peer: impl Strategy<Value = P> + Clone) -> impl Strategy<Value = Vec<P>> {
    prop_oneof![60 => vec(peer.clone(), 1..4), 1 => vec(peer, 0..1)]
}

fn protocols() -> impl Strategy<Value = Option<Vec<cnp::Protocol>>> {
    prop_oneof![20 => Just(None), 40 => vec(protocol(), 1..4).prop_map(Some), 1 => Just(Some(Vec::new()))]
}

fn protocol() -> impl Strategy<Value = cnp::Protocol> {
    let transport = prop_oneof![
        40 => cluster_port().prop_map(Some),
        1 => Just(None),
    ]
    .prop_map(|destination_port| cnp::TransportMatch { destination_port });
    let by_number = (select(&PROTOCOLS[..]), transport).prop_map(|(protocol, transport)| match protocol {
        Protocol::Tcp => cnp::Protocol {
            tcp: Some(transport),
            ..cnp::Protocol::default()
        },
        Protocol::Udp => cnp::Protocol {
            udp: Some(transport),
            ..cnp::Protocol::default()
        },
        Protocol::Sctp => cnp::Protocol {
            sctp: Some(transport),
            ..cnp::Protocol::default()
        },
    });
    let by_name = |name: &str| cnp::Protocol {
        destination_named_port: Some(name.to_owned()),
        ..cnp::Protocol::default()
    };
    prop_oneof![
        40 => by_number,
        20 => select(&PORT_NAMES[..]).prop_map(by_name),
        1 => Just(by_name("No Name")),
        1 => Just(cnp::Protocol::default()),
    ]
}

fn cluster_port() -> impl Strategy<Value = cnp::Port> {
    let port = || select(&PORTS[..]).prop_map(i32::from);
    let range = |start, end| cnp::Port {
        number: None,
        range: Some(cnp::PortRange { start, end }),
    };
    prop_oneof![
        20 => port().prop_map(|port| cnp::Port { number: Some(port), range: None }),
        20 => (port(), port()).prop_map(move |(one, two): (i32, i32)| range(one.min(two), one.max(two))),
        1 => (port(), port()).prop_map(move |(one, two)| range(one, two)),
        1 => Just(cnp::Port { number: Some(65536), range: None }),
        1 => Just(cnp::Port { number: None, range: None }),
    ]
}
