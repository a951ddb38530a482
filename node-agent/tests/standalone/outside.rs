//! To the outside as the node, and from outside to host ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use weir_testbed::Process;
use weir_testbed::topology::Uplink;
use weir_testbed::traffic::{self, Outcome, Serve, Tcp, Udp};

use crate::address::End;
use crate::node::{CLOSED, NODE, Node, PORT};
use crate::policy::{NAMESPACE, allow_ingress, network_policy};
use crate::probe::{echo, expect, large_echo, large_udp, tcp, udp};
use crate::wait::until;

/// Who the server at this address takes the client for, by TCP and by UDP.
fn seen_as(from: &End, to: SocketAddr) -> Result<[IpAddr; 2]> {
    let (by_tcp, by_udp) = from
        .place
        .run(|| (traffic::tcp(&Tcp::to(to)), traffic::udp(&Udp::to(to))))?;
    let by_tcp = by_tcp.greeting.context("greeted by TCP")?;
    let by_udp = by_udp.greeting.context("greeted by UDP")?;
    Ok([by_tcp.peer.ip(), by_udp.peer.ip()])
}

/// A server that answers from where it was asked, as one that listens everywhere does not by UDP.
const WORLD_PORT: u16 = 8085;

fn serve_in_the_world(node: &Node) -> Result<Process> {
    node.world.place.serve(&Serve {
        name: "world".into(),
        echo: node.world.address.at(WORLD_PORT).into(),
        ..Serve::default()
    })
}

/// Somewhere in the world, nobody knows the way to pods.
fn without_a_way_back(node: &Node) -> Result<()> {
    for family in ["", "-6 "] {
        node.outside.place.ip(&format!("{family}route del default"))?;
    }
    Ok(())
}

#[test]
fn pods_speak_to_the_world_as_their_node() -> Result<()> {
    let node = Node::with("outside-masquerade", &["--masquerade"])?;
    let (client, other) = (node.pod("client", 1)?, node.pod("other", 2)?);
    let _world = serve_in_the_world(&node)?;
    without_a_way_back(&node)?;
    let mut expected = Vec::new();
    for from in [&client, &other, &node.end] {
        expected.extend([
            tcp(from, &node.world, WORLD_PORT).answered(),
            udp(from, &node.world, WORLD_PORT).answered(),
            large_udp(from, &node.world, WORLD_PORT).answered(),
            echo(from, &node.world).answered(),
            large_echo(from, &node.world).answered(),
            tcp(from, &node.world, WORLD_PORT).by_socket().answered(),
            udp(from, &node.world, WORLD_PORT).by_socket().answered(),
            (tcp(from, &node.world, CLOSED), Outcome::Refused),
        ]);
    }
    // Pods of the same node hear each other as they are, and so does the node.
    expected.extend([
        tcp(&client, &other, PORT).answered(),
        tcp(&client, &node.end, PORT).answered(),
        tcp(&node.end, &client, PORT).answered(),
    ]);
    expect(&expected)?;
    for index in [0, 1] {
        let world = node.world.address.at(WORLD_PORT)[index];
        assert_eq!(seen_as(&client, world)?, [Uplink::NODE[index]; 2]);
        assert_eq!(
            seen_as(&client, other.address.at(PORT)[index])?,
            [client.address.ips[index]; 2]
        );
        assert_eq!(
            seen_as(&client, node.end.address.at(PORT)[index])?,
            [client.address.ips[index]; 2]
        );
        // An ICMP error from the world finds the socket that it is about.
        let closed = Udp::to(node.world.address.at(CLOSED)[index]).connected();
        let report = client.place.run(|| traffic::udp(&closed))?;
        assert_eq!(report.outcome, Outcome::Refused);
    }
    node.end()
}

/// The private ranges are not masqueraded unless the administrator says so.
#[test]
fn pods_speak_to_private_ranges_as_themselves() -> Result<()> {
    for (test, arguments, masqueraded) in [
        ("outside-private", vec!["--masquerade"], false),
        (
            "outside-all",
            vec!["--masquerade", "--non-masquerade-cidr", "10.0.0.0/8"],
            true,
        ),
    ] {
        let node = Node::with(test, &arguments)?;
        let client = node.pod("client", 1)?;
        expect(&[tcp(&client, &node.outside, PORT).answered()])?;
        for index in [0, 1] {
            let expected = if masqueraded {
                Uplink::NODE
            } else {
                client.address.ips
            };
            assert_eq!(
                seen_as(
                    &client,
                    Uplink::OUTSIDE.map(|ip| SocketAddr::new(ip, PORT))[index]
                )?,
                [expected[index]; 2]
            );
        }
        node.end()?;
    }
    Ok(())
}

/// More connections than ports: those that are one too many are dropped and counted, and the others live.
#[test]
fn the_last_port_is_not_the_end() -> Result<()> {
    let node = Node::with(
        "outside-ports",
        &["--masquerade", "--masquerade-ports", "61000-61000"],
    )?;
    let client = node.pod("client", 1)?;
    let _world = serve_in_the_world(&node)?;
    expect(&[tcp(&client, &node.world, WORLD_PORT).answered()])?;
    let to = node.world.address.at(WORLD_PORT)[0];
    let (first, second) = client.place.run(|| {
        let first = traffic::udp(&Udp::to(to));
        (first, traffic::udp(&Udp::to(to)))
    })?;
    // A socket each: the first one's port is taken until it has been silent for long.
    assert_eq!(
        [first.outcome, second.outcome],
        [Outcome::Answered, Outcome::TimedOut]
    );
    node.wait_for_metric("weir_packets_total", &["reason=\"ports-exhausted\""], |count| {
        count > 0.0
    })?;
    node.end()
}

/// Writes a pod with host ports, and serves in it.
fn pod_with_host_ports(node: &Node, name: &str, last: u8, ports: Value) -> Result<End> {
    let end = node.place(name, last)?;
    let addresses: Vec<Value> = end.address.ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": { "app": name },
            "annotations": { "dataplane.weir.dev/netns": end.place.netns_path() },
        },
        "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none", "ports": ports }] },
        "status": { "phase": "Running", "podIP": addresses[0]["ip"], "podIPs": addresses },
    });
    node.manifests
        .write_object(&format!("pod-{NAMESPACE}-{name}.yaml"), &object)?;
    Ok(end)
}

/// The names of the servers that answer there, by TCP and by UDP; none where nobody does.
fn servers(from: &End, to: SocketAddr, by_socket: bool) -> Result<[Option<String>; 2]> {
    let (tcp, udp) = (Tcp::to(to), Udp::to(to));
    let (by_tcp, by_udp) = if by_socket {
        (from.place.tcp(&tcp)?, from.place.udp(&udp)?)
    } else {
        from.place.run(|| (traffic::tcp(&tcp), traffic::udp(&udp)))?
    };
    let udp_from = by_udp.from;
    if by_udp.greeting.is_some() && udp_from != Some(to) {
        bail!("the answer to a datagram to {to} came from {udp_from:?}");
    }
    Ok([by_tcp.greeting, by_udp.greeting].map(|greeting| greeting.map(|greeting| greeting.server)))
}

#[test]
fn host_ports_are_reached_from_everywhere() -> Result<()> {
    const HOST_PORT: u16 = 8888;
    let node = Node::start("outside-hostport")?;
    let ports = json!([
        {"containerPort": PORT, "hostPort": HOST_PORT},
        {"containerPort": PORT, "hostPort": HOST_PORT, "protocol": "UDP"},
    ]);
    let server = pod_with_host_ports(&node, "server", 1, ports)?;
    let client = node.pod("client", 2)?;
    expect(&[tcp(&node.outside, &node.end, HOST_PORT).answered()])?;
    expect(&[
        udp(&node.outside, &node.end, HOST_PORT).answered(),
        large_udp(&node.outside, &node.end, HOST_PORT).answered(),
        // The same port of another address is nobody's.
        (tcp(&node.outside, &client, HOST_PORT), Outcome::Refused),
    ])?;
    let answered = [Some("server".to_owned()), Some("server".to_owned())];
    for index in [0, 1] {
        let at = node.end.address.at(HOST_PORT)[index];
        for (from, by_socket) in [
            (&node.outside, false),
            (&client, false),
            (&client, true),
            (&node.end, true),
            (&server, true),
        ] {
            assert_eq!(
                servers(from, at, by_socket)?,
                answered,
                "{} to {at}",
                from.address.name
            );
        }
        let loopback = SocketAddr::new(
            if index == 0 {
                Ipv4Addr::LOCALHOST.into()
            } else {
                "::1".parse()?
            },
            HOST_PORT,
        );
        assert_eq!(servers(&node.end, loopback, true)?, answered);
        // A pod's loopback is its own.
        assert_eq!(servers(&client, loopback, true)?, [None, None]);
        // Who asks is who they are.
        assert_eq!(seen_as(&node.outside, at)?, [Uplink::OUTSIDE[index]; 2]);
    }
    network_policy(&node.manifests, "only-client", &allow_ingress("server", "client"))?;
    expect(&[
        tcp(&node.outside, &node.end, HOST_PORT).silent(),
        tcp(&client, &node.end, HOST_PORT).answered(),
    ])?;
    node.remove_pod(&server)?;
    expect(&[(tcp(&client, &node.end, HOST_PORT), Outcome::Refused)])?;
    node.end()
}

/// As upstream's `HostPort validates that there is no conflict between pods with same hostPort but different hostIP and
/// protocol`.
#[test]
fn one_host_port_serves_several_pods() -> Result<()> {
    const HOST_PORT: u16 = 54_323;
    let node = Node::start("outside-hostport-3")?;
    let host_ip = Uplink::NODE[0];
    let port = |host_ip: IpAddr, protocol: &str| json!([{"containerPort": PORT, "hostPort": HOST_PORT, "hostIP": host_ip, "protocol": protocol}]);
    pod_with_host_ports(&node, "pod1", 1, port(Ipv4Addr::LOCALHOST.into(), "TCP"))?;
    pod_with_host_ports(&node, "pod2", 2, port(host_ip, "TCP"))?;
    pod_with_host_ports(&node, "pod3", 3, port(host_ip, "UDP"))?;
    let expected = [
        [Some("pod1".to_owned()), None],
        [Some("pod2".to_owned()), Some("pod3".to_owned())],
    ];
    until("the host ports do not lead where they should", || {
        let seen = [
            servers(&node.end, (Ipv4Addr::LOCALHOST, HOST_PORT).into(), true)?,
            servers(&node.end, (host_ip, HOST_PORT).into(), true)?,
        ];
        Ok(if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        })
    })?;
    // As the spec asks: bound to the node's address.
    let bound = Tcp {
        from: Some((host_ip, 0).into()),
        ..Tcp::to((Ipv4Addr::LOCALHOST, HOST_PORT).into())
    };
    assert_eq!(node.end.place.tcp(&bound)?.outcome, Outcome::Answered);
    assert_eq!(
        servers(&node.outside, (host_ip, HOST_PORT).into(), false)?,
        [Some("pod2".to_owned()), Some("pod3".to_owned())]
    );
    node.end()
}
