//! Generated clusters, as the agent of one of their nodes sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use weir_abi::address::{Address, CidrKey};
use weir_agent::contents::Contents;
use weir_agent::desired::{Desired, Inputs, LocalPod, desired};
use weir_agent::log_wishes::LogWishes;
use weir_agent::network::NetworkSettings;
use weir_agent::plan::{Plan, plan};
use weir_agent::services::ServicePort;
use weir_agent::workloads::{Mac, PodInterface};
use weir_policy::arbitrary;
use weir_policy::snapshot::{Node, Pod, PodId, Snapshot};

pub const NODES: [&str; 2] = ["node-1", "node-2"];
pub const RULE_CAPACITY: u32 = 4_096;

/// Every object that the agent of a node follows.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub snapshot: Snapshot,
    pub services: Vec<ServicePort>,
    /// Whether the agents know which addresses are other nodes' pods that they have not heard of.
    pub has_pod_ranges: bool,
}

/// The pods of `node` that policies see as pods.
pub fn local_pods<'a>(snapshot: &'a Snapshot, node: &'a str) -> impl Iterator<Item = (&'a PodId, &'a Pod)> {
    let pods = snapshot.pods.iter();
    pods.filter(move |(_, pod)| pod.node == node && pod.is_on_pod_network())
}

/// Pods with interfaces that `ifindex` names, all of whose connections are logged.
pub fn connected(
    snapshot: &Snapshot,
    node: &str,
    ifindex: impl Fn(&PodId) -> u32,
    log: LogWishes,
) -> BTreeMap<PodId, LocalPod> {
    let pods = local_pods(snapshot, node).map(|(id, pod)| {
        let host_ifindex = ifindex(id);
        let [_, _, high, low] = host_ifindex.to_be_bytes();
        let pod = LocalPod {
            addresses: pod.addresses.clone(),
            interface: PodInterface {
                host_ifindex,
                host_mac: Mac([2, 0, 0, 0, 0, 1]),
                pod_ifindex: 2,
                pod_mac: Mac([2, 0, 0, 1, high, low]),
            },
            log,
            closed: false,
        };
        (id.clone(), pod)
    });
    pods.collect()
}

/// A number that depends on the pod's name alone.
pub fn ifindex_by_name(id: &PodId) -> u32 {
    let sum = id
        .to_string()
        .bytes()
        .map(u32::from)
        .fold(7, |sum, byte| sum * 31 % 60_000 + byte);
    1_000 + sum
}

pub fn planned(snapshot: &Snapshot, node: &str, actual: &Contents) -> Plan {
    plan(snapshot, node, &actual.numbers)
}

/// What the maps of `node` should hold.
pub fn desired_for(world: &World, node: &str, actual: &Contents) -> Desired {
    let pods = connected(&world.snapshot, node, ifindex_by_name, LogWishes::default());
    desired_with(world, node, &pods, actual)
}

pub fn desired_with(
    world: &World,
    node: &str,
    pods: &BTreeMap<PodId, LocalPod>,
    actual: &Contents,
) -> Desired {
    let mut plan = planned(&world.snapshot, node, actual);
    if world.has_pod_ranges {
        plan.pod_ranges = pod_ranges(node);
    }
    let inputs = Inputs {
        plan: &plan,
        pods,
        services: &world.services,
        own_addresses: &BTreeSet::new(),
        network: &NetworkSettings::default(),
        rule_capacity: RULE_CAPACITY,
    };
    desired(&inputs, actual).expect("fewer rules than numbers")
}

/// Of the other node.
fn pod_ranges(node: &str) -> BTreeMap<CidrKey, bool> {
    let (v4, v6) = if node == NODES[0] {
        ([10, 0, 1, 0], [0xfd00, 0, 0, 2, 0, 0, 0, 0])
    } else {
        ([10, 0, 0, 0], [0xfd00, 0, 0, 1, 0, 0, 0, 0])
    };
    [(IpAddr::from(v4), 120), (IpAddr::from(v6), 64)]
        .map(|(network, prefix_len)| {
            let address = Address::from_ip(network).0;
            (CidrKey { prefix_len, address }, true)
        })
        .into()
}

pub fn world() -> impl Strategy<Value = World> {
    (arbitrary::snapshot(), services()).prop_map(|(snapshot, services)| World {
        snapshot,
        services,
        has_pod_ranges: false,
    })
}

pub fn world_with_pod_ranges() -> impl Strategy<Value = World> {
    world().prop_map(|world| World {
        has_pod_ranges: true,
        ..world
    })
}

/// Few addresses and ports, so that two sets of Services meet.
pub fn services() -> impl Strategy<Value = Vec<ServicePort>> {
    let place = (
        select(&["10.96.0.1", "10.96.0.2", "fd00:96::1"][..]),
        select(&[80u16, 443][..]),
        select(&[6u8, 17][..]),
    );
    let backend = (1u8..4, select(&[80u16, 8080][..]));
    let service = (place, vec(backend, 0..5)).prop_map(|((address, port, protocol), backends)| {
        let address: IpAddr = address.parse().expect("an address");
        let backend = |(host, port): (u8, u16)| {
            let ip: IpAddr = match address {
                IpAddr::V4(_) => [10, 0, 0, host].into(),
                IpAddr::V6(_) => [0xfd00, 0, 0, 1, 0, 0, 0, u16::from(host)].into(),
            };
            (ip, port)
        };
        let backends: BTreeSet<(IpAddr, u16)> = backends.into_iter().map(backend).collect();
        let service = ServicePort {
            namespace: "blue".to_owned(),
            name: format!("{address}-{port}-{protocol}"),
            port_name: String::new(),
            protocol,
            address,
            port,
            backends: backends.into_iter().collect(),
        };
        (service.name.clone(), service)
    });
    vec(service, 0..6).prop_map(|services| {
        let distinct: BTreeMap<String, ServicePort> = services.into_iter().collect();
        distinct.into_values().collect()
    })
}

/// A cluster after some of its objects have been replaced by those of another, some have gone and some have come.
pub fn changed(world: &World, other: &World, coins: &[bool]) -> World {
    let mut coins = coins.iter().cycle().copied();
    let mut toss = || coins.next().unwrap_or_default();
    let (one, two) = (&world.snapshot, &other.snapshot);
    let snapshot = Snapshot {
        namespaces: mixed(&one.namespaces, &two.namespaces, &mut toss),
        pods: mixed(&one.pods, &two.pods, &mut toss),
        nodes: with_more_addresses(&other.snapshot.nodes, &mut toss),
        network_policies: mixed(&one.network_policies, &two.network_policies, &mut toss),
        cluster_network_policies: mixed(
            &one.cluster_network_policies,
            &two.cluster_network_policies,
            &mut toss,
        ),
        flow_log_policies: BTreeMap::new(),
    };
    let by_name = |services: &[ServicePort]| -> BTreeMap<String, ServicePort> {
        services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect()
    };
    let services = mixed(&by_name(&world.services), &by_name(&other.services), &mut toss);
    World {
        snapshot: without_shared_addresses(snapshot),
        services: services.into_values().collect(),
        has_pod_ranges: world.has_pod_ranges,
    }
}

/// For each key, what one of the two has.
fn mixed<K: Ord + Clone, V: Clone>(
    one: &BTreeMap<K, V>,
    two: &BTreeMap<K, V>,
    toss: &mut impl FnMut() -> bool,
) -> BTreeMap<K, V> {
    let keys: BTreeSet<&K> = one.keys().chain(two.keys()).collect();
    let chosen = keys.into_iter().filter_map(|key| {
        let value = if toss() { two.get(key) } else { one.get(key) };
        Some((key.clone(), value?.clone()))
    });
    chosen.collect()
}

/// Nodes that have addresses which were nobody's before, or a pod's.
fn with_more_addresses(
    nodes: &BTreeMap<String, Node>,
    toss: &mut impl FnMut() -> bool,
) -> BTreeMap<String, Node> {
    let mut nodes = nodes.clone();
    let more = ["10.0.0.77", "fd00::1:0:0:0:77", "10.0.0.3", "fd00:0:0:1::3"];
    for (address, node) in more.iter().zip(NODES.iter().cycle()) {
        if toss()
            && let Some(node) = nodes.get_mut(*node)
        {
            node.addresses.push(address.parse().expect("an address"));
        }
    }
    nodes
}

/// Nobody gives one address to two running pods.
fn without_shared_addresses(mut snapshot: Snapshot) -> Snapshot {
    let mut taken = BTreeSet::new();
    snapshot.pods.retain(|_, pod| {
        !pod.is_on_pod_network() || pod.addresses.iter().all(|address| taken.insert(*address))
    });
    snapshot
}
