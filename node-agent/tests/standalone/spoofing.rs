//! Nobody sends as somebody else.

use anyhow::{Result, ensure};

use crate::address::{Address, End, service_ips};
use crate::node::{Node, PORT};
use crate::policy::{allow_ingress, network_policy};
use crate::probe::{echo, expect, tcp, udp};

/// Gives a host an address that is not its own, where the agent does not look after it.
fn claim(place: &End, claimed: &Address) -> Result<()> {
    claimed.ips.iter().try_for_each(|ip| {
        let nodad = if ip.is_ipv6() { "nodad" } else { "" };
        place.place.ip(&format!("address add {ip} dev lo {nodad}"))
    })
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() -> Result<()> {
    let node = Node::start("spoofing-pod")?;
    let (liar, client, server) = (
        node.pod("liar", 1)?,
        node.pod("client", 2)?,
        node.pod("server", 3)?,
    );
    network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
    expect(&[
        tcp(&client, &server, PORT).answered(),
        tcp(&liar, &server, PORT).silent(),
    ])?;
    // Of another pod, of the node, of the host outside, of nobody, of a Service.
    let nobody = Address::new("nobody", ["198.51.100.7".parse()?, "fd00:bad::7".parse()?]);
    let service = Address::new("service", service_ips(10));
    for claimed in [
        &client.address,
        &node.end.address,
        &node.outside.address,
        &nobody,
        &service,
    ] {
        claim(&liar, claimed)?;
        let (dropped, reached, came_out) = (
            node.packets("source-not-own")?,
            server.place.arrivals()?,
            node.outside.place.arrivals()?,
        );
        let mut probes = vec![
            tcp(&liar, &server, PORT).with_source(claimed).silent(),
            udp(&liar, &server, PORT).with_source(claimed).silent(),
            udp(&liar, &node.world, PORT).with_source(claimed).silent(),
        ];
        // Who claims the node's address does not get out with what is for the node.
        if claimed != &node.end.address {
            probes.push(udp(&liar, &node.end, PORT).with_source(claimed).silent());
        }
        expect(&probes)?;
        // Each probe at least once, in each family; and it did not even get there.
        ensure!(
            node.packets("source-not-own")? >= dropped + 2 * probes.len() as u64,
            "{}",
            claimed.name
        );
        assert_eq!(server.place.arrivals()?, reached, "{}", claimed.name);
        assert_eq!(node.outside.place.arrivals()?, came_out, "{}", claimed.name);
        liar.place.ip("address flush dev lo scope global")?;
    }
    expect(&[
        tcp(&client, &server, PORT).answered(),
        udp(&liar, &node.world, PORT).answered(),
    ])?;
    node.end()
}

#[test]
fn nobody_outside_sends_from_a_pods_address() -> Result<()> {
    let node = Node::start("spoofing-outside")?;
    let (client, server) = (node.pod("client", 2)?, node.pod("server", 3)?);
    network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
    expect(&[
        tcp(&client, &server, PORT).answered(),
        tcp(&node.outside, &server, PORT).silent(),
    ])?;
    claim(&node.outside, &client.address)?;
    let (dropped, reached) = (node.packets("source-not-own")?, server.place.arrivals()?);
    expect(&[
        tcp(&node.outside, &server, PORT)
            .with_source(&client.address)
            .silent(),
        udp(&node.outside, &server, PORT)
            .with_source(&client.address)
            .silent(),
    ])?;
    ensure!(node.packets("source-not-own")? >= dropped + 4);
    assert_eq!(server.place.arrivals()?, reached);
    expect(&[
        tcp(&client, &server, PORT).answered(),
        echo(&client, &server).answered(),
    ])?;
    node.end()
}
