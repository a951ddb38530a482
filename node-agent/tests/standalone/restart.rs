//! The agent goes and comes back while traffic runs.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weir_testbed::traffic::{Protocol, RunningStream, Stream, StreamReport};

use crate::address::{Address, End, pod_ips};
use crate::node::{Node, PORT, SERVICE_PORT};
use crate::policy::{allow_egress, allow_ingress, deny_all, network_policy, pods, remove_network_policy};
use crate::probe::{expect, expect_at_once, large_udp, tcp, udp};
use crate::wait::PATIENCE;

/// Messages a second on each stream.
const RATE: u32 = 200;

struct Bed {
    node: Node,
    client: End,
    /// In no control group of the agent's, so that its Service connections are translated packet by packet.
    outsider: End,
    other: End,
    server: End,
    service: Address,
}

impl Bed {
    fn new(test: &str, arguments: &[&str]) -> Result<Bed> {
        let node = Node::with(test, arguments)?;
        let (client, other, server) = (
            node.pod("client", 1)?,
            node.pod("other", 2)?,
            node.pod("server", 3)?,
        );
        let outsider = End {
            place: node.testbed.host("outsider")?,
            address: Address::new("outsider", pod_ips(4)),
        };
        node.describe(&outsider, &[("app", "client")])?;
        let service = node.service("service", 10, &[&server])?;
        for app in ["client", "server"] {
            network_policy(&node.manifests, &format!("{app}-closed"), &deny_all(app))?;
        }
        network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
        network_policy(&node.manifests, "out", &allow_egress("client", "server"))?;
        // A segment that is sent once more is one that was lost, and no guess (tcp_early_retrans, ip-sysctl).
        for end in [&client, &outsider, &server] {
            end.place.sysctl("net/ipv4/tcp_early_retrans", "0")?;
        }
        let bed = Bed {
            node,
            client,
            outsider,
            other,
            server,
            service,
        };
        expect(&[
            tcp(&bed.client, &bed.service, SERVICE_PORT)
                .by_socket()
                .answered(),
            tcp(&bed.outsider, &bed.service, SERVICE_PORT)
                .by_socket()
                .answered(),
            tcp(&bed.other, &bed.server, PORT).silent(),
        ])?;
        Ok(bed)
    }

    /// TCP and UDP, both families, directly and through the Service, by socket and by packet.
    fn streams(&self) -> Result<Vec<(String, RunningStream)>> {
        let mut streams = Vec::new();
        for (end, to) in [
            (&self.client, self.server.address.at(PORT)),
            (&self.client, self.service.at(SERVICE_PORT)),
            (&self.outsider, self.service.at(SERVICE_PORT)),
        ] {
            for to in to {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    streams.push(self.stream(end, to, protocol)?);
                }
            }
        }
        for (name, stream) in &streams {
            stream
                .wait_until("under way", PATIENCE, |report| report.received > 10)
                .with_context(|| name.clone())?;
        }
        Ok(streams)
    }

    fn stream(&self, from: &End, to: SocketAddr, protocol: Protocol) -> Result<(String, RunningStream)> {
        let stream = Stream {
            linger_millis: 5000,
            ..Stream::new(protocol, to, RATE, Duration::from_secs(300))
        };
        Ok((
            format!("{} → {to} {protocol:?}", from.address.name),
            from.place.stream(&stream)?,
        ))
    }

    /// What is denied stays denied, whoever is dead.
    fn denied_is_denied(&self) -> Result<()> {
        expect_at_once(&[
            tcp(&self.other, &self.server, PORT).silent(),
            udp(&self.other, &self.server, PORT).silent(),
            tcp(&self.other, &self.service, SERVICE_PORT).by_socket().silent(),
            tcp(&self.server, &self.client, PORT).silent(),
            tcp(&self.node.outside, &self.server, PORT).silent(),
        ])
    }

    /// New connections, which nobody is needed for.
    fn allowed_is_allowed(&self) -> Result<()> {
        expect(&[
            tcp(&self.client, &self.server, PORT).answered(),
            udp(&self.client, &self.service, SERVICE_PORT)
                .by_socket()
                .answered(),
            tcp(&self.outsider, &self.service, SERVICE_PORT)
                .by_socket()
                .answered(),
            large_udp(&self.outsider, &self.service, SERVICE_PORT).answered(),
        ])
    }

    /// Every place where something of ours can pile up.
    fn inventory(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        pins(&self.node.testbed.bpffs(), &mut found)?;
        let links = tool(&self.node, "ip", &["-brief", "link", "show", "type", "veth"])?;
        for link in links.lines().filter_map(|line| line.split(['@', ' ']).next()) {
            for direction in ["ingress", "egress"] {
                let filters = tool(&self.node, "tc", &["filter", "show", "dev", link, direction])?;
                found.insert(format!(
                    "{link}: {} filters of {direction}",
                    filters.matches("direct-action").count()
                ));
            }
        }
        Ok(found)
    }
}

fn pins(directory: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        found.insert(path.display().to_string());
        if path.is_dir() {
            pins(&path, found)?;
        }
    }
    Ok(())
}

/// The output of a tool in the node's namespace.
fn tool(node: &Node, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command: Command = node.end.place.command(program);
    let output = command
        .args(arguments)
        .output()
        .with_context(|| program.to_string())?;
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Everything that was sent has come back once.
fn nothing_was_lost(streams: Vec<(String, RunningStream)>) -> Result<()> {
    let mut problems = Vec::new();
    for (name, stream) in streams {
        let report = stream.stop()?;
        let sound = StreamReport {
            sent: report.sent,
            received: report.sent,
            reordered: report.reordered,
            max_gap_millis: report.max_gap_millis,
            silent_millis: report.silent_millis,
            ..StreamReport::default()
        };
        if report != sound {
            problems.push(format!("{name}: {report:?}"));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// Kills and starts the agent again and again under streams.
fn again_and_again(test: &str, arguments: &[&str], times: u32) -> Result<()> {
    let mut bed = Bed::new(test, arguments)?;
    let before = bed.inventory()?;
    let clsact = before.iter().any(|line| line.contains(": 1 filters"));
    assert_eq!(clsact, arguments.contains(&"--clsact"), "{before:#?}");
    let sent_again = |bed: &Bed| -> Result<u64> {
        let ends = [&bed.client, &bed.outsider, &bed.server];
        ends.iter()
            .map(|end| Ok(end.place.arrivals()?.tcp_sent_again))
            .sum()
    };
    let sent_again_before = sent_again(&bed)?;
    let streams = bed.streams()?;
    for round in 0..times {
        if round % 10 == 9 {
            bed.node.agent.stop().with_context(|| format!("round {round}"))?;
        } else {
            bed.node.agent.kill9()?;
        }
        if round % 10 >= 8 {
            bed.denied_is_denied()
                .with_context(|| format!("while it was dead, round {round}"))?;
            bed.allowed_is_allowed()
                .with_context(|| format!("while it was dead, round {round}"))?;
        }
        bed.node
            .agent
            .start_again()
            .with_context(|| format!("round {round}"))?;
    }
    bed.denied_is_denied()?;
    bed.allowed_is_allowed()?;
    let sent_again = sent_again(&bed)? - sent_again_before;
    nothing_was_lost(streams)?;
    // Probes that are denied send their SYN again, but not from these ends.
    ensure!(sent_again == 0, "{sent_again} segments were sent more than once");
    assert_eq!(bed.inventory()?, before);
    bed.node.end()
}

#[test]
fn fifty_restarts_lose_nothing() -> Result<()> {
    again_and_again("restart", &[], 50)
}

#[test]
fn restarts_with_clsact_lose_nothing() -> Result<()> {
    again_and_again("restart-clsact", &["--clsact"], 10)
}

/// What changes while nobody looks takes effect when somebody looks again.
#[test]
fn what_changed_meanwhile_takes_effect_at_the_start() -> Result<()> {
    let mut bed = Bed::new("restart-changes", &[])?;
    let manifests = bed.node.manifests.clone();
    let doomed = bed.node.pod("doomed", 5)?;
    expect(&[
        tcp(&doomed, &bed.node.outside, PORT).answered(),
        tcp(&bed.outsider, &bed.server, PORT).answered(),
    ])?;
    let streams = bed.streams()?;
    let before = bed.inventory()?;

    bed.node.agent.kill9()?;
    // A policy edited, one removed, one added; a label changed; a pod removed, and one added.
    network_policy(&manifests, "in", &allow_ingress("server", "other"))?;
    remove_network_policy(&manifests, "out")?;
    let out = json!({ "podSelector": pods("other"), "policyTypes": ["Egress"], "egress": [{ "to": [{ "podSelector": pods("server") }] }] });
    network_policy(&manifests, "other-out", &out)?;
    bed.node.remove_pod(&doomed)?;
    let new = bed.node.pod("new", 6)?;
    bed.node.describe(&new, &[("app", "other")])?;
    // Until then all is as it was.
    expect_at_once(&[
        tcp(&bed.client, &bed.server, PORT).answered(),
        tcp(&bed.other, &bed.server, PORT).silent(),
        tcp(&doomed, &bed.node.outside, PORT).answered(),
    ])?;
    ensure!(
        new.place.mac("eth0").is_err(),
        "somebody has connected the new pod"
    );
    bed.node.agent.start_again()?;
    // It is ready: so all of it holds, without waiting.
    expect_at_once(&[
        tcp(&bed.client, &bed.server, PORT).silent(),
        udp(&bed.outsider, &bed.server, PORT).silent(),
        tcp(&bed.other, &bed.server, PORT).answered(),
        tcp(&bed.other, &bed.node.outside, PORT).silent(),
        tcp(&new, &bed.server, PORT).answered(),
        tcp(&bed.node.outside, &doomed, PORT).silent(),
    ])?;
    ensure!(
        doomed.place.mac("eth0").is_err(),
        "the pod that is gone is connected still"
    );
    for (name, stream) in &streams {
        stream
            .wait_until("cut", PATIENCE, |report| report.silent_millis > 700.0)
            .with_context(|| name.clone())?;
    }
    // As it was; and the connections that were cut go on.
    bed.node.agent.kill9()?;
    network_policy(&manifests, "in", &allow_ingress("server", "client"))?;
    network_policy(&manifests, "out", &allow_egress("client", "server"))?;
    remove_network_policy(&manifests, "other-out")?;
    bed.node.remove_pod(&new)?;
    bed.node.describe(&doomed, &[("app", "doomed")])?;
    bed.node.agent.start_again()?;
    bed.denied_is_denied()?;
    bed.allowed_is_allowed()?;
    for (name, stream) in &streams {
        let before = stream.so_far().received;
        stream
            .wait_until("going on", PATIENCE, |report| report.received > before + 5)
            .with_context(|| name.clone())?;
    }
    expect(&[tcp(&doomed, &bed.node.outside, PORT).answered()])?;
    drop(streams);
    // The interface of the pod that went and came is another one.
    assert_eq!(bed.inventory()?.len(), before.len());
    bed.node.end()
}
