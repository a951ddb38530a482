//! Two nodes on one link, each with an agent and pods, and the routes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use weir_agent::routes::vxlan::{self, VxlanSettings};
use weir_agent::routes::{
    NodeNetwork, NodeRoute, Operation, Plan, Reconciled, reconcile, reconcile_vxlan, remove_vxlan,
};
use weir_testbed::traffic::Serve;
use weir_testbed::{Agent, AgentOptions, Manifests, Place, Pod, Process, Testbed};

use crate::address::{Address, End};
use crate::node::{PORT, map};
use crate::policy::{NAMESPACE, allow_ingress, network_policy};
use crate::probe::{echo, expect, large_udp, tcp, udp};

const LINK: &str = "uplink0";

/// One of the two. Each has a testbed of its own, as each has a BPF file system of its own.
struct Half {
    agent: Agent,
    manifests: Manifests,
    node: End,
    pod: End,
    _servers: Vec<Process>,
    testbed: Testbed,
}

fn node_ips(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(192, 0, 2, number).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    ]
}

fn pod_ips(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 244, number, 7).into(),
        Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 7).into(),
    ]
}

fn network(number: u8) -> NodeNetwork {
    let cidr = |ip: IpAddr| {
        IpNet::new(ip, if ip.is_ipv4() { 24 } else { 64 })
            .expect("a length")
            .trunc()
    };
    NodeNetwork {
        addresses: node_ips(number).into(),
        pod_cidrs: pod_ips(number).map(cidr).into(),
    }
}

fn name(number: u8) -> String {
    format!("n{number}")
}

fn serve(place: &Place, name: &str) -> Result<Process> {
    place.serve(&Serve {
        name: name.into(),
        echo: [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]
            .map(|ip| SocketAddr::new(ip, PORT))
            .into(),
        ..Serve::default()
    })
}

/// Two nodes' places, joined.
fn places(testbeds: &[Testbed; 2]) -> Result<[Place; 2]> {
    let places = [testbeds[0].host("node")?, testbeds[1].host("node")?];
    places[0].ip(&format!(
        "link add {LINK} type veth peer name {LINK} netns {}",
        places[1].netns()
    ))?;
    for (place, number) in places.iter().zip([1, 2]) {
        let [v4, v6] = node_ips(number);
        // As distributions have it that want to be strict.
        place.sysctl("net/ipv4/conf/all/rp_filter", "1")?;
        place.ip(&format!("link set {LINK} up"))?;
        place.ip(&format!("address add {v4}/24 dev {LINK}"))?;
        place.ip(&format!("address add {v6}/64 dev {LINK} nodad"))?;
    }
    Ok(places)
}

fn half(testbed: Testbed, place: Place, number: u8, arguments: &[&str]) -> Result<Half> {
    let arguments = [&["--masquerade"], arguments].concat();
    let options = AgentOptions {
        uplink: Some(LINK.into()),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        program: Some(env!("CARGO_BIN_EXE_weir-agent").into()),
    };
    let pod = testbed.pod(&place, "pod")?;
    let servers = vec![
        serve(&place, &name(number))?,
        serve(&pod, &format!("pod{number}"))?,
    ];
    let agent = Agent::start(&testbed, &place, &name(number), options)?;
    Ok(Half {
        manifests: agent.manifests(),
        agent,
        node: End {
            place,
            address: Address::new(&name(number), node_ips(number)),
        },
        pod: End {
            place: pod,
            address: Address::new(&format!("pod{number}"), pod_ips(number)),
        },
        _servers: servers,
        testbed,
    })
}

impl Half {
    /// Tells this node's agent of a pod, wherever it is.
    fn hear_of(&self, pod: &End, number: u8) -> Result<()> {
        self.manifests.pod(&Pod {
            namespace: NAMESPACE.into(),
            name: pod.address.name.clone(),
            labels: map(&[("app", &pod.address.name)]),
            node: name(number),
            addresses: pod.address.ips.into(),
            netns: pod.place.netns_path(),
            ports: Vec::new(),
        })
    }

    fn end(mut self) -> Result<()> {
        let log = std::fs::read_to_string(self.agent.log())?;
        if let Some(line) = log.lines().find(|line| line.contains("ERROR")) {
            bail!("the agent logged: {line}");
        }
        self.agent.stop()?;
        self.testbed.remove()
    }
}

/// Routes to these nodes' pods, as the agent of node `number` makes them.
/// Every kind of packet goes from the first of two ends to the second, and what answers it comes back.
fn expect_reached(ends: &[(&End, &End)]) -> Result<()> {
    let probes: Vec<_> = ends
        .iter()
        .flat_map(|(from, to)| {
            [
                tcp(from, to, PORT).answered(),
                udp(from, to, PORT).answered(),
                large_udp(from, to, PORT).answered(),
                echo(from, to).answered(),
            ]
        })
        .collect();
    expect(&probes)
}

fn routes(place: &Place, number: u8, others: &[u8]) -> Result<Plan> {
    let others: BTreeMap<String, NodeNetwork> = others
        .iter()
        .map(|number| (name(*number), network(*number)))
        .collect();
    within(place, async || Ok(reconcile(&network(number), &others).await?))
}

fn ifindex(place: &Place) -> Result<u32> {
    place.run(|| nix::net::if_::if_nametoindex(LINK))?.context(LINK)
}

#[test]
fn pods_and_nodes_reach_each_other() -> Result<()> {
    let testbeds = [Testbed::new("between-1")?, Testbed::new("between-2")?];
    let [first, second] = places(&testbeds)?;
    let [one, two] = testbeds;
    let (one, two) = (half(one, first, 1, &[])?, half(two, second, 2, &[])?);
    for half in [&one, &two] {
        half.hear_of(&one.pod, 1)?;
        half.hear_of(&two.pod, 2)?;
    }
    for (place, number, other) in [(&one.node.place, 1, 2), (&two.node.place, 2, 1)] {
        let plan = routes(place, number, &[other])?;
        assert_eq!((plan.operations.len(), plan.unrouted.len()), (2, 0), "{plan:?}");
        assert_eq!(routes(place, number, &[other])?, Plan::default());
    }
    expect_reached(&[
        (&one.pod, &two.pod),
        (&two.pod, &one.pod),
        (&one.pod, &two.node),
        (&one.node, &two.pod),
        (&one.node, &two.node),
    ])?;

    // A pod of another node is known by its labels, and a node is not a pod of its own.
    network_policy(&two.manifests, "only-pod1", &allow_ingress("pod2", "pod1"))?;
    expect(&[
        tcp(&one.pod, &two.pod, PORT).answered(),
        tcp(&one.node, &two.pod, PORT).silent(),
        tcp(&two.node, &two.pod, PORT).answered(),
    ])?;
    one.end()?;
    two.end()
}

/// Routes of a node that went are removed, one that moved is followed, and routes of somebody else are left alone.
#[test]
fn routes_follow_the_nodes() -> Result<()> {
    let testbeds = [Testbed::new("routes-1")?, Testbed::new("routes-2")?];
    let [place, _] = places(&testbeds)?;
    let index = ifindex(&place)?;
    let route = |number: u8, family: usize| NodeRoute {
        destination: network(number).pod_cidrs.into_iter().nth(family).expect("a CIDR"),
        gateway: node_ips(number)[family],
        ifindex: index,
    };
    place.ip(&format!(
        "route add {} via {} dev {LINK}",
        "10.244.9.0/24",
        node_ips(2)[0]
    ))?;
    let made = routes(&place, 1, &[2, 3])?;
    assert_eq!(
        made.operations,
        [route(2, 0), route(3, 0), route(2, 1), route(3, 1)].map(Operation::Add)
    );
    let left = routes(&place, 1, &[2, 9])?;
    let mut expected = vec![Operation::Add(route(9, 1))];
    expected.extend([route(3, 0), route(3, 1)].map(Operation::Remove));
    assert_eq!(left.operations, expected);
    assert_eq!(left.unrouted.len(), 1, "{left:?}");
    let gone = routes(&place, 1, &[])?;
    assert_eq!(
        gone.operations,
        [route(2, 0), route(2, 1), route(9, 1)].map(Operation::Remove)
    );
    // That of somebody else.
    place.ip("route get 10.244.9.1")?;
    place.ip(&format!(
        "route del 10.244.9.0/24 via {} dev {LINK}",
        node_ips(2)[0]
    ))?;
    Ok(())
}

/// Runs netlink work in the node's namespace.
fn within<T: Send>(place: &Place, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    place.run(|| -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work())
    })?
}

fn tunnel(place: &Place, number: u8, others: &[u8]) -> Result<Reconciled> {
    let others = others
        .iter()
        .map(|number| (name(*number), network(*number)))
        .collect();
    let wanted = vxlan::wanted(
        &name(number),
        &network(number),
        &others,
        VxlanSettings::default(),
        1_500,
    );
    let wanted = wanted.context("an address")?;
    within(place, async || Ok(reconcile_vxlan(&wanted).await?))
}

/// No route leads to the pods of the other node but that through the tunnel.
#[test]
fn pods_reach_each_other_through_a_tunnel() -> Result<()> {
    let testbeds = [Testbed::new("tunnel-1")?, Testbed::new("tunnel-2")?];
    let [first, second] = places(&testbeds)?;
    for (place, number, other) in [(&first, 1, 2), (&second, 2, 1)] {
        // Nodes come and go, and the interface stays.
        let first = tunnel(place, number, &[other, 3])?;
        // Two addresses of its own; each other node's place, two gateways and two routes.
        assert_eq!(
            (first.added.len(), first.removed.len()),
            (2 + 2 * 5, 0),
            "{first:?}"
        );
        let second = tunnel(place, number, &[other, 9])?;
        assert_eq!((second.added.len(), second.removed.len()), (5, 5), "{second:?}");
        assert!(second.removed.is_subset(&first.added));
        let third = tunnel(place, number, &[other])?;
        assert_eq!(third.removed, second.added);
        assert_eq!(
            tunnel(place, number, &[other])?,
            Reconciled {
                ifindex: first.ifindex,
                added: BTreeSet::new(),
                removed: BTreeSet::new(),
            }
        );
    }
    let [one, two] = testbeds;
    let arguments = ["--uplink", vxlan::INTERFACE, "--mtu", "1450"];
    let (one, two) = (
        half(one, first, 1, &arguments)?,
        half(two, second, 2, &arguments)?,
    );
    for half in [&one, &two] {
        half.hear_of(&one.pod, 1)?;
        half.hear_of(&two.pod, 2)?;
    }
    expect_reached(&[
        (&one.pod, &two.pod),
        (&two.pod, &one.pod),
        (&one.node, &two.pod),
        (&one.pod, &two.node),
    ])?;
    network_policy(&two.manifests, "only-pod1", &allow_ingress("pod2", "pod1"))?;
    expect(&[
        tcp(&one.pod, &two.pod, PORT).answered(),
        tcp(&one.node, &two.pod, PORT).silent(),
    ])?;
    let place = one.node.place.clone();
    assert!(within(&place, async || Ok(remove_vxlan().await?))?);
    assert!(!within(&place, async || Ok(remove_vxlan().await?))?);
    expect(&[tcp(&one.pod, &two.pod, PORT).silent()])?;
    one.end()?;
    two.end()
}
