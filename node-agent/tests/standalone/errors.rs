//! ICMP errors find their way to whoever caused them.

use std::time::Duration;

use anyhow::Result;
use weir_testbed::topology::{UPLINK, Uplink};
use weir_testbed::traffic::{self, Outcome, Tcp, Udp};

use crate::address::{Address, End};
use crate::node::{CLOSED, Node, PORT, SERVICE_PORT};
use crate::policy::{allow_ingress, deny_all, network_policy};
use crate::probe::{expect, tcp};
use crate::wait::until;

/// A connected socket is told of an ICMP error; that is what is asked for. By socket or by packet, in both families.
fn refused(from: &End, to: &impl AsRef<Address>, port: u16) -> Result<[Outcome; 4]> {
    let [v4, v6] = to
        .as_ref()
        .at(port)
        .map(|to| Udp::to(to).connected().timeout(Duration::from_millis(700)));
    let by_packet = |request: &Udp| from.place.run(|| traffic::udp(request));
    Ok([
        from.place.udp(&v4)?.outcome,
        from.place.udp(&v6)?.outcome,
        by_packet(&v4)?.outcome,
        by_packet(&v6)?.outcome,
    ])
}

/// Waits for it: an answer can come late on a machine that does other things.
fn is_refused(from: &End, to: &impl AsRef<Address>, port: u16) -> Result<()> {
    const REFUSED: [Outcome; 4] = [const { Outcome::Refused }; 4];
    until(
        &format!(
            "{} is told that {} does not listen",
            from.address.name,
            to.as_ref().name
        ),
        || {
            let outcomes = refused(from, to, port)?;
            Ok(if outcomes == REFUSED {
                Ok(())
            } else {
                Err(format!(
                    "by socket IPv4, IPv6, by packet IPv4, IPv6: {outcomes:?}"
                ))
            })
        },
    )
}

#[test]
fn a_closed_port_is_told_of() -> Result<()> {
    let node = Node::start("errors-port")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    expect(&[tcp(&client, &server, PORT).answered()])?;
    for with_policy in [false, true] {
        if with_policy {
            // The server may not send anything of its own.
            network_policy(&node.manifests, "closed", &deny_all("server"))?;
            network_policy(&node.manifests, "allow", &allow_ingress("server", "client"))?;
            expect(&[
                tcp(&server, &client, PORT).silent(),
                tcp(&client, &server, PORT).answered(),
            ])?;
        }
        is_refused(&client, &server, CLOSED)?;
        is_refused(&client, &node.outside, CLOSED)?;
        if !with_policy {
            is_refused(&node.outside, &client, CLOSED)?;
            is_refused(&node.end, &client, CLOSED)?;
        }
    }
    node.end()
}

/// The error quotes the packet as the backend has seen it, which is not as the client sent it.
#[test]
fn a_closed_port_behind_a_service_is_told_of() -> Result<()> {
    let node = Node::start("errors-service")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    let service = node.service("service", 10, &[])?;
    node.endpoints("service", CLOSED, &[&server])?;
    expect(&[(tcp(&client, &service, SERVICE_PORT), Outcome::Refused)])?;
    is_refused(&client, &service, SERVICE_PORT)?;
    node.end()
}

/// The node cannot send on what is too large for its uplink, and says so: TCP sends smaller segments then.
#[test]
fn a_smaller_mtu_on_the_way_is_found_out() -> Result<()> {
    let node = Node::start("errors-mtu")?;
    let client = node.pod("client", 1)?;
    network_policy(&node.manifests, "closed", &deny_all("client"))?;
    network_policy(
        &node.manifests,
        "egress",
        &serde_json::json!({
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{ "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }, { "ipBlock": { "cidr": "2001:db8::/32" } }] }],
        }),
    )?;
    expect(&[
        tcp(&client, &node.world, PORT).answered(),
        tcp(&client, &node.outside, PORT).silent(),
    ])?;
    node.end.place.ip(&format!("link set {UPLINK} mtu 1300"))?;
    // The other end heeds the MTU, too, but does not say so to the client.
    for (gateway, segment) in Uplink::NODE.into_iter().zip([1460, 1440]) {
        node.outside.place.ip(&format!(
            "route replace default via {gateway} dev eth0 mtu 1300 advmss {segment}"
        ))?;
    }
    let errors = node.packets("related-error")?;
    for to in node.world.address.at(PORT) {
        let request = Tcp {
            bytes: 300_000,
            ..Tcp::to(to).timeout(Duration::from_secs(10))
        };
        assert_eq!(client.place.tcp(&request)?.outcome, Outcome::Answered, "{to}");
    }
    assert!(
        node.packets("related-error")? >= errors + 2,
        "no error was sent, so nothing was tried"
    );
    node.end()
}
