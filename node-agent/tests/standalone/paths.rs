//! Every way that traffic takes, without policy and with it.

use anyhow::{Context, Result};
use serde_json::json;
use weir_testbed::traffic::{Greeting, Outcome, Tcp, TcpReport, Udp, UdpReport};

use crate::address::{Address, End};
use crate::node::{CLOSED, Node, OTHER_PORT, PORT, SERVICE_PORT};
use crate::policy::{allow_egress, allow_ingress, deny_all, network_policy, pods, remove_network_policy};
use crate::probe::{Probe, echo, expect, large_echo, large_udp, tcp, udp};

/// All that can be sent from one to the other.
fn everything(from: &End, to: &impl AsRef<Address>) -> [Probe; 5] {
    [
        tcp(from, to, PORT),
        udp(from, to, PORT),
        large_udp(from, to, PORT),
        echo(from, to),
        large_echo(from, to),
    ]
}

fn answered(probes: impl IntoIterator<Item = Probe>) -> impl Iterator<Item = (Probe, Outcome)> {
    probes.into_iter().map(Probe::answered)
}

fn silent(probes: impl IntoIterator<Item = Probe>) -> impl Iterator<Item = (Probe, Outcome)> {
    probes.into_iter().map(Probe::silent)
}

#[test]
fn without_policy_everything_goes_everywhere() -> Result<()> {
    let node = Node::start("paths-none")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    let mut expected = Vec::new();
    for (from, to) in [
        (&client, &server),
        (&server, &client),
        (&client, &client),
        (&client, &node.end),
        (&node.end, &client),
        (&client, &node.outside),
        (&node.outside, &client),
        (&client, &node.world),
        (&node.world, &client),
        (&node.end, &node.outside),
        (&node.outside, &node.end),
    ] {
        expected.extend(answered(everything(from, to)));
    }
    expected.push((tcp(&client, &server, CLOSED), Outcome::Refused));
    expect(&expected)?;
    node.end()
}

/// Both by socket, where the connection is made straight to the backend, and by packet, where each packet is
/// translated.
#[test]
fn a_service_is_reached_by_socket_and_by_packet() -> Result<()> {
    let node = Node::start("paths-service")?;
    let (client, server, other) = (
        node.pod("client", 1)?,
        node.pod("server", 2)?,
        node.pod("other", 3)?,
    );
    let one = node.service("one", 10, &[&server])?;
    let own = node.service("own", 11, &[&client])?;
    let none = node.service("none", 12, &[])?;
    let outer = node.service("outer", 13, &[&node.outside])?;
    expect(&[
        tcp(&client, &one, SERVICE_PORT).answered(),
        udp(&client, &one, SERVICE_PORT).answered(),
        large_udp(&client, &one, SERVICE_PORT).answered(),
        tcp(&client, &one, SERVICE_PORT).by_socket().answered(),
        udp(&client, &one, SERVICE_PORT).by_socket().answered(),
        large_udp(&client, &one, SERVICE_PORT).by_socket().answered(),
        tcp(&client, &outer, SERVICE_PORT).answered(),
        udp(&client, &outer, SERVICE_PORT).answered(),
        large_udp(&client, &outer, SERVICE_PORT).answered(),
        tcp(&client, &outer, SERVICE_PORT).by_socket().answered(),
        udp(&client, &outer, SERVICE_PORT).by_socket().answered(),
        // The node's own sockets reach Services, too.
        tcp(&node.end, &one, SERVICE_PORT).by_socket().answered(),
        udp(&node.end, &one, SERVICE_PORT).by_socket().answered(),
        // A pod that is its own backend.
        tcp(&client, &own, SERVICE_PORT).by_socket().answered(),
        udp(&client, &own, SERVICE_PORT).by_socket().answered(),
        tcp(&other, &own, SERVICE_PORT).answered(),
        tcp(&other, &own, SERVICE_PORT).by_socket().answered(),
        // Nobody answers for it.
        tcp(&client, &none, SERVICE_PORT).silent(),
        udp(&client, &none, SERVICE_PORT).silent(),
        tcp(&client, &none, SERVICE_PORT).by_socket().silent(),
        udp(&client, &none, SERVICE_PORT).by_socket().silent(),
    ])?;
    for index in [0, 1] {
        names_are_right(&client, &server, &one, index)?;
    }
    node.end()
}

/// What each side is told of the other, in one family.
fn names_are_right(client: &End, server: &End, service: &Address, index: usize) -> Result<()> {
    let (asked, backend) = (service.at(SERVICE_PORT)[index], server.address.at(PORT)[index]);
    let greeting = |peer| {
        Some(Greeting {
            server: "server".into(),
            local: backend,
            peer,
        })
    };
    let by_packet = |request: &Tcp| client.place.run(|| weir_testbed::traffic::tcp(request));
    for report in [client.place.tcp(&Tcp::to(asked))?, by_packet(&Tcp::to(asked))?] {
        let local = report.local.context("connected")?;
        let expected = TcpReport {
            outcome: Outcome::Answered,
            connected: true,
            local: Some(local),
            peer: Some(asked),
            greeting: greeting(local),
            connect_millis: report.connect_millis,
        };
        assert_eq!((report, local.ip()), (expected, client.address.ips[index]));
    }
    for connected in [false, true] {
        let request = Udp {
            connected,
            ..Udp::to(asked)
        };
        let by_packet = client.place.run(|| weir_testbed::traffic::udp(&request))?;
        for report in [client.place.udp(&request)?, by_packet] {
            let seen = report.greeting.as_ref().context("greeted")?.peer;
            // The server listens everywhere: where it was reached it does not say.
            let greeting = report.greeting.clone().map(|greeting| Greeting {
                local: backend,
                ..greeting
            });
            let expected = UdpReport {
                outcome: Outcome::Answered,
                local: report.local,
                peer: connected.then_some(asked),
                from: Some(asked),
                greeting: Some(Greeting {
                    server: "server".into(),
                    local: backend,
                    peer: seen,
                }),
                millis: report.millis,
            };
            assert_eq!(
                (UdpReport { greeting, ..report }, seen.ip()),
                (expected, client.address.ips[index])
            );
        }
    }
    Ok(())
}

#[test]
fn what_policy_allows_goes_and_what_it_denies_does_not() -> Result<()> {
    let node = Node::start("paths-policy")?;
    let (client, other, server) = (
        node.pod("client", 1)?,
        node.pod("other", 2)?,
        node.pod("server", 3)?,
    );
    let service = node.service("service", 10, &[&server])?;
    network_policy(&node.manifests, "closed", &deny_all("server"))?;
    network_policy(&node.manifests, "allow", &allow_ingress("server", "client"))?;
    let mut expected = Vec::new();
    expected.extend(answered(everything(&client, &server)));
    expected.extend(silent(everything(&other, &server)));
    expected.extend(silent(everything(&node.outside, &server)));
    expected.extend(silent(everything(&node.world, &server)));
    expected.extend(silent(everything(&server, &client)));
    expected.extend(silent(everything(&server, &node.outside)));
    expected.extend(silent(everything(&server, &node.world)));
    // A pod and its node, and a pod and itself, always.
    expected.extend(answered(everything(&node.end, &server)));
    expected.extend(answered(everything(&server, &node.end)));
    expected.extend(answered(everything(&server, &server)));
    // Nobody has said anything about these.
    expected.extend(answered(everything(&other, &client)));
    expected.extend(answered(everything(&other, &node.outside)));
    for probe in [tcp, udp, large_udp] {
        expected.extend([
            probe(&client, &service, SERVICE_PORT).answered(),
            probe(&client, &service, SERVICE_PORT).by_socket().answered(),
            probe(&other, &service, SERVICE_PORT).silent(),
            probe(&other, &service, SERVICE_PORT).by_socket().silent(),
        ]);
    }
    expect(&expected)?;
    node.end()
}

/// The same from the other end: what a client may open.
#[test]
fn egress_is_policed_before_and_after_a_service_is_chosen() -> Result<()> {
    let node = Node::start("paths-egress")?;
    let (client, other, server) = (
        node.pod("client", 1)?,
        node.pod("other", 2)?,
        node.pod("server", 3)?,
    );
    let wanted = node.service("wanted", 10, &[&server])?;
    let unwanted = node.service("unwanted", 11, &[&other])?;
    network_policy(&node.manifests, "egress", &allow_egress("client", "server"))?;
    let mut expected = Vec::new();
    expected.extend(answered(everything(&client, &server)));
    expected.extend(silent(everything(&client, &other)));
    expected.extend(silent(everything(&client, &node.outside)));
    expected.extend(answered(everything(&client, &node.end)));
    expected.extend(answered(everything(&other, &client)));
    for probe in [tcp, udp] {
        expected.extend([
            probe(&client, &wanted, SERVICE_PORT).answered(),
            probe(&client, &wanted, SERVICE_PORT).by_socket().answered(),
            probe(&client, &unwanted, SERVICE_PORT).silent(),
            probe(&client, &unwanted, SERVICE_PORT).by_socket().silent(),
        ]);
    }
    expect(&expected)?;
    // Without the policy all of it goes.
    remove_network_policy(&node.manifests, "egress")?;
    expect(
        &expected
            .into_iter()
            .map(|(probe, _)| probe.answered())
            .collect::<Vec<_>>(),
    )?;
    node.end()
}

/// By protocol and port, in the pod's own numbers.
#[test]
fn ports_are_those_of_the_pod() -> Result<()> {
    let node = Node::start("paths-ports")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    let service = node.service("service", 10, &[&server])?;
    let spec = |ports| json!({ "podSelector": pods("server"), "ingress": [{ "ports": ports }] });
    let probes = |tcp_open, udp_open, other_open| {
        let is = |probe: Probe, open| if open { probe.answered() } else { probe.silent() };
        vec![
            is(tcp(&client, &server, PORT), tcp_open),
            is(tcp(&client, &service, SERVICE_PORT), tcp_open),
            is(tcp(&client, &service, SERVICE_PORT).by_socket(), tcp_open),
            is(udp(&client, &server, PORT), udp_open),
            is(large_udp(&client, &server, PORT), udp_open),
            is(udp(&client, &service, SERVICE_PORT), udp_open),
            is(tcp(&client, &server, OTHER_PORT), other_open),
            echo(&client, &server).silent(),
        ]
    };
    for (ports, [tcp_open, udp_open, other_open]) in [
        (json!([{ "port": PORT }]), [true, false, false]),
        (json!([{ "protocol": "UDP", "port": PORT }]), [false, true, false]),
        (json!([{ "protocol": "TCP" }]), [true, false, true]),
        (json!([{ "port": 8000, "endPort": 9089 }]), [true, false, false]),
        (json!([{ "port": 8081, "endPort": 9091 }]), [false, false, true]),
        (json!([{ "port": "web" }]), [true, false, false]),
        (
            json!([{ "protocol": "UDP", "port": "dns" }]),
            [false, true, false],
        ),
        // The name is that of a UDP port.
        (
            json!([{ "port": "dns" }, { "port": OTHER_PORT }]),
            [false, false, true],
        ),
        // The Service's own port says nothing.
        (
            json!([{ "port": SERVICE_PORT }, { "protocol": "UDP", "port": PORT }]),
            [false, true, false],
        ),
    ] {
        network_policy(&node.manifests, "ports", &spec(ports))?;
        expect(&probes(tcp_open, udp_open, other_open))?;
    }
    node.end()
}
