//! What rules say, asked of real packets: CIDRs, namespaces, tiers.

use anyhow::Result;
use serde_json::{Value, json};
use weir_testbed::traffic::Outcome;

use crate::address::{Address, pod_ips};
use crate::node::{Node, OTHER_PORT, PORT};
use crate::policy::{
    allow_ingress, cluster_network_policy, network_policy, pods, remove_cluster_network_policy,
    remove_network_policy,
};
use crate::probe::{Probe, echo, expect, tcp, udp};

fn is(open: bool, probe: Probe) -> (Probe, Outcome) {
    if open { probe.answered() } else { probe.silent() }
}

/// A block holds whoever has an address in it, inside or outside.
#[test]
fn blocks_hold_pods_and_others_but_for_the_exceptions() -> Result<()> {
    let node = Node::start("rules-cidr")?;
    let (near, far, server) = (
        node.pod("near", 1)?,
        node.pod("far", 130)?,
        node.pod("server", 3)?,
    );
    let block = |v4: &str, v6: &str, except: [Vec<&str>; 2]| {
        let [except4, except6] = except;
        json!([{ "ipBlock": { "cidr": v4, "except": except4 } }, { "ipBlock": { "cidr": v6, "except": except6 } }])
    };
    let none = || [vec![], vec![]];
    // Who is in: near, far, the host outside, and the same by an address in the world.
    let cases: [(Value, [bool; 4]); 6] = [
        (block("0.0.0.0/0", "::/0", none()), [true, true, true, true]),
        (
            block("10.244.1.0/25", "fd00:10:244:1::/121", none()),
            [true, false, false, false],
        ),
        (
            block(
                "10.244.0.0/16",
                "fd00:10:244::/48",
                [vec!["10.244.1.1/32"], vec!["fd00:10:244:1::1/128"]],
            ),
            [false, true, false, false],
        ),
        (
            block(
                "0.0.0.0/0",
                "::/0",
                [
                    vec!["10.0.0.0/8", "203.0.113.0/24"],
                    vec!["fd00:10::/32", "2001:db8::/32"],
                ],
            ),
            [false, false, true, false],
        ),
        (
            block("203.0.113.10/32", "2001:db8::10/128", none()),
            [false, false, false, true],
        ),
        // An exception is no denial: what another rule allows stays allowed.
        (
            json!([
                { "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.244.1.0/24"] } },
                { "ipBlock": { "cidr": "::/0", "except": ["fd00:10:244::/48"] } },
                { "podSelector": pods("far") },
            ]),
            [false, true, true, true],
        ),
    ];
    for (peers, [near_in, far_in, outside_in, world_in]) in &cases {
        network_policy(&node.manifests, "out", &json!({ "podSelector": pods("none") }))?;
        network_policy(
            &node.manifests,
            "in",
            &json!({ "podSelector": pods("server"), "ingress": [{ "from": peers }] }),
        )?;
        expect(&[
            is(*near_in, tcp(&near, &server, PORT)),
            is(*far_in, tcp(&far, &server, PORT)),
            is(*outside_in, tcp(&node.outside, &server, PORT)),
            is(*outside_in, udp(&node.outside, &server, PORT)),
            is(*outside_in, echo(&node.outside, &server)),
            is(
                *world_in,
                tcp(&node.world, &server, PORT).with_source(&node.world.address),
            ),
            tcp(&node.end, &server, PORT).answered(),
        ])?;
    }
    remove_network_policy(&node.manifests, "in")?;
    for (peers, [near_in, far_in, outside_in, world_in]) in &cases {
        let spec = json!({ "podSelector": pods("server"), "policyTypes": ["Egress"], "egress": [{ "to": peers, "ports": [{ "port": PORT }] }] });
        network_policy(&node.manifests, "out", &spec)?;
        expect(&[
            is(*near_in, tcp(&server, &near, PORT)),
            is(*far_in, tcp(&server, &far, PORT)),
            is(*outside_in, tcp(&server, &node.outside, PORT)),
            is(*world_in, tcp(&server, &node.world, PORT)),
            tcp(&server, &near, OTHER_PORT).silent(),
            udp(&server, &node.outside, PORT).silent(),
            tcp(&server, &node.end, PORT).answered(),
        ])?;
    }
    node.end()
}

/// Pods by their namespace, by their labels in it, and those of other nodes.
#[test]
fn namespaces_and_pods_are_selected_together() -> Result<()> {
    let node = Node::start("rules-namespaces")?;
    node.namespace("default", &[])?;
    node.namespace("a", &[("team", "a")])?;
    node.namespace("b", &[("team", "b")])?;
    let (web_a, db_a) = (node.place("web-a", 1)?, node.place("db-a", 2)?);
    let (web_b, server) = (node.place("web-b", 3)?, node.pod("server", 4)?);
    node.describe_in("a", &web_a, &[("app", "web")])?;
    node.describe_in("a", &db_a, &[("app", "db")])?;
    node.describe_in("b", &web_b, &[("app", "web")])?;
    // At the address of the host outside, as if it were another node's pod.
    node.describe_remote("remote", node.world.address.ips, &[("app", "web")])?;
    let team_a = json!({ "matchLabels": { "team": "a" } });
    for (peer, [web_a_in, db_a_in, web_b_in, remote_in]) in [
        (json!({ "podSelector": pods("web") }), [false, false, false, true]),
        (json!({ "podSelector": {} }), [false, false, false, true]),
        (json!({ "namespaceSelector": {} }), [true, true, true, true]),
        (json!({ "namespaceSelector": team_a }), [true, true, false, false]),
        (
            json!({ "namespaceSelector": team_a, "podSelector": pods("web") }),
            [true, false, false, false],
        ),
        (
            json!({ "namespaceSelector": {}, "podSelector": pods("web") }),
            [true, false, true, true],
        ),
        (
            json!({ "namespaceSelector": { "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["a"] }] } }),
            [false, false, true, true],
        ),
        (
            json!({ "namespaceSelector": { "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["b"] }] } }),
            [false, false, true, false],
        ),
    ] {
        network_policy(
            &node.manifests,
            "in",
            &json!({ "podSelector": pods("server"), "ingress": [{ "from": [peer] }] }),
        )?;
        expect(&[
            is(web_a_in, tcp(&web_a, &server, PORT)),
            is(db_a_in, tcp(&db_a, &server, PORT)),
            is(web_b_in, tcp(&web_b, &server, PORT)),
            is(
                remote_in,
                tcp(&node.world, &server, PORT).with_source(&node.world.address),
            ),
            tcp(&node.outside, &server, PORT).silent(),
        ])?;
    }
    node.end()
}

/// Admin before NetworkPolicy before Baseline; by priority within a tier, and in order within a policy.
#[test]
fn tiers_are_asked_in_their_order() -> Result<()> {
    let node = Node::start("rules-tiers")?;
    let (client, other, server) = (
        node.pod("client", 1)?,
        node.pod("other", 2)?,
        node.pod("server", 3)?,
    );
    let from = |app: &str| json!([{ "pods": { "podSelector": pods(app) } }]);
    let subject = || json!({ "pods": { "podSelector": pods("server") } });
    let ingress = |tier: &str, priority: u32, rules: Value| json!({ "tier": tier, "priority": priority, "subject": subject(), "ingress": rules });
    // What comes through: the client by TCP, by UDP and by echo; the other one by TCP.
    let expect_open = |[tcp_open, udp_open, echo_open, other_open]: [bool; 4]| {
        expect(&[
            is(tcp_open, tcp(&client, &server, PORT)),
            is(udp_open, udp(&client, &server, PORT)),
            is(echo_open, echo(&client, &server)),
            is(other_open, tcp(&other, &server, PORT)),
        ])
    };
    let write = |name: &str, spec: Value| cluster_network_policy(&node.manifests, name, &spec);

    write(
        "baseline",
        ingress(
            "Baseline",
            1,
            json!([{ "action": "Deny", "from": from("client") }]),
        ),
    )?;
    expect_open([false, false, false, true])?;
    // A NetworkPolicy is asked first, and leaves nothing over.
    network_policy(&node.manifests, "np", &allow_ingress("server", "client"))?;
    expect_open([true, true, true, false])?;
    let tcp_only = json!([{ "tcp": { "destinationPort": { "number": PORT } } }]);
    write(
        "deny-tcp",
        ingress(
            "Admin",
            20,
            json!([{ "action": "Deny", "from": from("client"), "protocols": tcp_only }]),
        ),
    )?;
    expect_open([false, true, true, false])?;
    // Before it: one that accepts, of a better priority.
    write(
        "accept",
        ingress(
            "Admin",
            10,
            json!([{ "action": "Accept", "from": from("client"), "protocols": tcp_only }]),
        ),
    )?;
    expect_open([true, true, true, false])?;
    // Pass leaves the tier, so that the NetworkPolicy decides.
    write(
        "accept",
        ingress(
            "Admin",
            10,
            json!([{ "action": "Pass", "from": from("client"), "protocols": tcp_only }]),
        ),
    )?;
    write(
        "accept-others",
        ingress(
            "Admin",
            30,
            json!([{ "action": "Accept", "from": from("other") }]),
        ),
    )?;
    expect_open([true, true, true, true])?;
    // Without it: passed on to Baseline, which denies.
    remove_network_policy(&node.manifests, "np")?;
    expect_open([false, false, false, true])?;
    // The first rule that matches.
    write(
        "accept",
        ingress(
            "Admin",
            10,
            json!([
                { "action": "Accept", "from": from("client"), "protocols": [{ "udp": { "destinationPort": { "range": { "start": 8000, "end": 8100 } } } }] },
                { "action": "Deny", "from": from("client"), "protocols": [{ "udp": { "destinationPort": { "range": { "start": 1, "end": 65535 } } } }] },
                { "action": "Accept", "from": from("client"), "protocols": [{ "destinationNamedPort": "web" }] },
            ]),
        ),
    )?;
    expect_open([true, true, false, true])?;
    for name in ["accept", "accept-others", "deny-tcp", "baseline"] {
        remove_cluster_network_policy(&node.manifests, name)?;
    }
    expect_open([true, true, true, true])?;
    node.end()
}

/// Networks hold pods, too; and nodes never stand between a pod and its own node.
#[test]
fn networks_in_egress_rules_hold_everybody() -> Result<()> {
    let node = Node::start("rules-networks")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    let remote = Address::new("remote", pod_ips(200));
    node.describe_remote("remote", remote.ips, &[("app", "server")])?;
    let egress = |rules: Value| json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": rules });
    let everything = json!([{ "networks": ["0.0.0.0/0", "::/0"] }]);
    cluster_network_policy(
        &node.manifests,
        "out",
        &egress(json!([{ "action": "Deny", "to": everything }])),
    )?;
    expect(&[
        tcp(&client, &server, PORT).silent(),
        tcp(&client, &node.outside, PORT).silent(),
        tcp(&node.outside, &client, PORT).answered(),
        tcp(&client, &node.end, PORT).answered(),
        echo(&client, &server).silent(),
    ])?;
    let rules = json!([
        { "action": "Accept", "to": [{ "networks": ["203.0.113.0/24", "2001:db8::/32"] }] },
        { "action": "Pass", "to": [{ "pods": { "podSelector": pods("server") } }] },
        { "action": "Deny", "to": everything },
    ]);
    cluster_network_policy(&node.manifests, "out", &egress(rules))?;
    expect(&[
        tcp(&client, &server, PORT).answered(),
        tcp(&server, &client, PORT).silent(),
        tcp(&client, &node.outside, PORT).silent(),
        tcp(&client, &node.world, PORT).answered(),
        tcp(&client, &node.end, PORT).answered(),
    ])?;
    node.end()
}
