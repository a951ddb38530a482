//! A change of policy, of labels, of pods and of endpoints takes hold of connections that are under way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weir_testbed::Place;
use weir_testbed::traffic::{self, Greeting, Protocol, RunningStream, Stream, StreamReport, Tcp, Udp};

use crate::address::{Address, End, pod_ips};
use crate::node::{Node, OTHER_PORT, PORT, SERVICE_PORT};
use crate::policy::{
    allow_egress, allow_ingress, cluster_network_policy, deny_all, network_policy, pods,
    remove_cluster_network_policy, remove_network_policy,
};
use crate::probe::{expect, tcp, udp};
use crate::wait::{PATIENCE, until};

const RATE: u32 = 50;
/// No echo for this long: cut.
const SILENCE: f64 = 700.0;

/// Streams from one client to one server, directly and through a Service, all of them under way.
struct Streams(Vec<(String, RunningStream)>);

impl Streams {
    fn start(from: [&Place; 2], to: [[SocketAddr; 2]; 2]) -> Result<Streams> {
        let mut streams = Vec::new();
        for place in from {
            for to in to.concat() {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let stream = Stream::new(protocol, to, RATE, Duration::from_secs(120));
                    streams.push((
                        format!("{} → {to} {protocol:?}", place.netns()),
                        place.stream(&stream)?,
                    ));
                }
            }
        }
        let streams = Streams(streams);
        streams.flow()?;
        Ok(streams)
    }

    /// Waits until echoes arrive on all of them that were not there before.
    fn flow(&self) -> Result<()> {
        let before = self.received();
        for ((name, stream), before) in self.0.iter().zip(before) {
            let flows = |report: &StreamReport| report.received > before + 5;
            stream
                .wait_until("flowing", PATIENCE, flows)
                .with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// Waits until all of them are silent; and they stay so.
    fn are_cut(&self) -> Result<()> {
        for (name, stream) in &self.0 {
            let is_cut = |report: &StreamReport| report.silent_millis > SILENCE;
            stream
                .wait_until("cut", PATIENCE, is_cut)
                .with_context(|| name.clone())?;
        }
        let before = self.received();
        std::thread::sleep(Duration::from_millis(200));
        ensure!(self.received() == before, "echoes still arrive");
        Ok(())
    }

    fn received(&self) -> Vec<u64> {
        self.0
            .iter()
            .map(|(_, stream)| stream.so_far().received)
            .collect()
    }

    /// Every message of every TCP connection has come back, once and in order, over all the cuts.
    fn end(self) -> Result<()> {
        for (name, stream) in self.0 {
            let report = stream.stop()?;
            let sound = StreamReport {
                received: report.sent,
                sent: report.sent,
                max_gap_millis: report.max_gap_millis,
                silent_millis: report.silent_millis,
                ..StreamReport::default()
            };
            if name.ends_with("Tcp") {
                ensure!(report == sound, "{name}: {report:?}");
            } else {
                let sound = StreamReport {
                    received: report.received,
                    lost: report.lost,
                    errors: report.errors,
                    reordered: report.reordered,
                    ..sound
                };
                ensure!(
                    report == sound && report.received + report.lost == report.sent,
                    "{name}: {report:?}"
                );
            }
        }
        Ok(())
    }
}

/// A client by socket, a client by packet, a server, a Service, and streams.
struct Bed {
    node: Node,
    client: End,
    /// In no control group of the agent's.
    outsider: End,
    server: End,
    streams: Streams,
}

impl Bed {
    fn new(test: &str) -> Result<Bed> {
        let node = Node::start(test)?;
        let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
        let outsider = End {
            place: node.testbed.host("outsider")?,
            address: Address::new("outsider", pod_ips(3)),
        };
        node.describe(&outsider, &[("app", "client")])?;
        let service = node.service("service", 10, &[&server])?;
        expect(&[
            tcp(&client, &server, PORT).answered(),
            tcp(&outsider, &service, SERVICE_PORT).by_socket().answered(),
        ])?;
        let to = [server.address.at(PORT), service.at(SERVICE_PORT)];
        let streams = Streams::start([&client.place, &outsider.place], to)?;
        Ok(Bed {
            node,
            client,
            outsider,
            server,
            streams,
        })
    }

    fn end(self) -> Result<()> {
        self.streams.end()?;
        self.node.end()
    }
}

#[test]
fn network_policies_cut_and_let_go_on() -> Result<()> {
    let bed = Bed::new("changes-np")?;
    let manifests = &bed.node.manifests;
    // What the other end may open is another question.
    network_policy(
        manifests,
        "unrelated",
        &json!({ "podSelector": pods("client"), "policyTypes": ["Ingress"] }),
    )?;
    expect(&[tcp(&bed.server, &bed.client, PORT).silent()])?;
    bed.streams.flow()?;
    // At the receiving end: by a policy that is removed, and one that is edited.
    network_policy(manifests, "in", &json!({ "podSelector": pods("server") }))?;
    bed.streams.are_cut()?;
    remove_network_policy(manifests, "in")?;
    bed.streams.flow()?;
    network_policy(manifests, "in", &allow_ingress("server", "nobody"))?;
    bed.streams.are_cut()?;
    network_policy(manifests, "in", &allow_ingress("server", "client"))?;
    bed.streams.flow()?;
    // At the sending end.
    network_policy(manifests, "out", &allow_egress("client", "nobody"))?;
    bed.streams.are_cut()?;
    network_policy(manifests, "out", &allow_egress("client", "server"))?;
    bed.streams.flow()?;
    // By the port.
    let only = |port| json!({ "podSelector": pods("server"), "ingress": [{ "ports": [{ "port": port }, { "port": port, "protocol": "UDP" }] }] });
    network_policy(manifests, "in", &only(OTHER_PORT))?;
    bed.streams.are_cut()?;
    network_policy(manifests, "in", &only(PORT))?;
    bed.streams.flow()?;
    bed.end()
}

#[test]
fn cluster_network_policies_and_labels_cut_and_let_go_on() -> Result<()> {
    let bed = Bed::new("changes-cnp")?;
    let manifests = &bed.node.manifests;
    network_policy(manifests, "in", &allow_ingress("server", "client"))?;
    let deny = json!({
        "tier": "Admin",
        "priority": 5,
        "subject": { "pods": { "podSelector": pods("client") } },
        "egress": [{ "action": "Deny", "to": [{ "networks": ["10.244.0.0/16", "fd00:10:244::/48"] }] }],
    });
    cluster_network_policy(manifests, "deny", &deny)?;
    bed.streams.are_cut()?;
    remove_cluster_network_policy(manifests, "deny")?;
    bed.streams.flow()?;
    // The labels of both clients, away and back.
    for (label, flows) in [("other", false), ("client", true)] {
        for client in [&bed.client, &bed.outsider] {
            bed.node.describe(client, &[("app", label)])?;
        }
        if flows {
            bed.streams.flow()?
        } else {
            bed.streams.are_cut()?
        }
    }
    // The labels of their namespace.
    let from_namespace = json!({
        "podSelector": pods("server"),
        "ingress": [{ "from": [{ "namespaceSelector": { "matchLabels": { "team": "a" } } }] }],
    });
    network_policy(manifests, "in", &from_namespace)?;
    bed.streams.are_cut()?;
    bed.node.namespace("default", &[("team", "a")])?;
    bed.streams.flow()?;
    bed.node.namespace("default", &[("team", "b")])?;
    bed.streams.are_cut()?;
    bed.node.namespace("default", &[("team", "a")])?;
    bed.streams.flow()?;
    bed.end()
}

/// Who has an address is a matter of the pod that has it.
#[test]
fn a_pod_that_comes_again_is_another_one() -> Result<()> {
    let node = Node::start("changes-pods")?;
    let (client, server, witness) = (
        node.pod("client", 1)?,
        node.pod("server", 2)?,
        node.pod("witness", 3)?,
    );
    network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
    expect(&[
        tcp(&client, &server, PORT).answered(),
        tcp(&witness, &server, PORT).silent(),
    ])?;

    node.remove_pod(&client)?;
    expect(&[tcp(&witness, &client, PORT).silent()])?;
    // The same name with other addresses.
    let moved = End {
        address: Address::new("client", pod_ips(9)),
        ..client.clone()
    };
    node.describe(&moved, &[("app", "client")])?;
    expect(&[
        tcp(&moved, &server, PORT).answered(),
        udp(&moved, &server, PORT).answered(),
        tcp(&server, &moved, PORT).answered(),
    ])?;
    // The addresses of before go to somebody else.
    let heir = node.place("heir", 1)?;
    node.describe(&heir, &[("app", "heir")])?;
    expect(&[
        tcp(&heir, &witness, PORT).answered(),
        tcp(&heir, &server, PORT).silent(),
        udp(&heir, &server, PORT).silent(),
        tcp(&moved, &server, PORT).answered(),
    ])?;
    // And the server itself, with a connection under way that is not to find the next one.
    node.remove_pod(&server)?;
    let next = node.place("next", 2)?;
    node.describe(&next, &[("app", "next")])?;
    network_policy(&node.manifests, "next", &deny_all("next"))?;
    expect(&[
        tcp(&next, &witness, PORT).silent(),
        tcp(&moved, &next, PORT).silent(),
        tcp(&heir, &next, PORT).silent(),
    ])?;
    node.end()
}

/// New connections go to whom the endpoints name; TCP connections that are there stay where they are.
#[test]
fn endpoints_change_under_connections() -> Result<()> {
    let node = Node::start("changes-endpoints")?;
    let client = node.pod("client", 1)?;
    let outsider = End {
        place: node.testbed.host("outsider")?,
        address: Address::new("outsider", pod_ips(4)),
    };
    node.describe(&outsider, &[("app", "client")])?;
    let (first, second) = (node.pod("first", 2)?, node.pod("second", 3)?);
    let service = node.service("service", 10, &[&first])?;
    expect(&[
        tcp(&client, &service, SERVICE_PORT).by_socket().answered(),
        tcp(&outsider, &service, SERVICE_PORT).by_socket().answered(),
    ])?;
    let mut streams = Vec::new();
    for (from, to) in [&client, &outsider]
        .into_iter()
        .flat_map(|from| service.at(SERVICE_PORT).map(|to| (from, to)))
    {
        let stream = Stream::new(Protocol::Tcp, to, RATE, Duration::from_secs(60));
        streams.push(from.place.stream(&stream)?);
    }
    for stream in &streams {
        stream.wait_until("under way", PATIENCE, |report| report.received > 5)?;
    }
    for endpoints in [
        vec![&second],
        vec![&first, &second],
        vec![&second, &first],
        vec![&first],
    ] {
        node.endpoints("service", PORT, &endpoints)?;
        let names: Vec<&str> = endpoints.iter().map(|end| end.address.name.as_str()).collect();
        answered_by(&client, &service, &names)?;
        answered_by(&outsider, &service, &names)?;
    }
    for stream in streams {
        let report = stream.stop()?;
        let sound = StreamReport {
            sent: report.sent,
            received: report.sent,
            max_gap_millis: report.max_gap_millis,
            silent_millis: report.silent_millis,
            ..StreamReport::default()
        };
        assert_eq!(report, sound);
    }
    node.endpoints("service", PORT, &[])?;
    expect(&[
        tcp(&client, &service, SERVICE_PORT).by_socket().silent(),
        tcp(&outsider, &service, SERVICE_PORT).by_socket().silent(),
    ])?;
    node.end()
}

/// Waits until each of those named answers, and nobody else does: by packet, and by socket.
fn answered_by(from: &End, service: &Address, names: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    until(&format!("{} → {names:?}", from.address.name), || {
        let mut greetings = Vec::new();
        for to in service.at(SERVICE_PORT) {
            for _ in 0..10 {
                greetings.push(from.place.run(|| traffic::tcp(&Tcp::to(to)))?.greeting);
                greetings.push(from.place.run(|| traffic::udp(&Udp::to(to)))?.greeting);
            }
            for _ in 0..3 {
                greetings.push(from.place.tcp(&Tcp::to(to))?.greeting);
                greetings.push(from.place.udp(&Udp::to(to))?.greeting);
            }
        }
        let server =
            |greeting: Option<Greeting>| greeting.map_or("nobody".into(), |greeting| greeting.server);
        let seen: BTreeSet<String> = greetings.into_iter().map(server).collect();
        Ok(if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        })
    })
}
