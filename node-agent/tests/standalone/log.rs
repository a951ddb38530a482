//! The policy log holds what it should, and adds up to what the kernel has counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_agent::flow::reconcile::{Reconciled, RuleKey, reconcile};
use weir_agent::flow::record::{
    Connection, Disposition, LogDirection, Party, PolicyName, PolicyRecord, ServiceRef,
};
use weir_testbed::traffic::{self, Tcp};

use crate::address::{Address, End};
use crate::node::{NODE, Node, OTHER_PORT, PORT, SERVICE_PORT};
use crate::policy::{NAMESPACE, allow_egress, allow_ingress, flow_log_policy, network_policy};
use crate::probe::{expect, tcp, udp};
use crate::wait::until;

/// A server that only the client may reach, and which may reach nobody; a client that may reach the server only.
struct Bed {
    node: Node,
    client: End,
    other: End,
    server: End,
    service: Address,
}

impl Bed {
    fn new(test: &str) -> Result<Bed> {
        let node = Node::start(test)?;
        let (client, other, server) = (
            node.pod("client", 1)?,
            node.pod("other", 2)?,
            node.pod("server", 3)?,
        );
        let service = node.service("service", 10, &[&server])?;
        network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
        network_policy(&node.manifests, "out", &allow_egress("client", "server"))?;
        expect(&[
            tcp(&client, &service, SERVICE_PORT).answered(),
            tcp(&other, &server, PORT).silent(),
            tcp(&client, &other, PORT).silent(),
        ])?;
        Ok(Bed {
            node,
            client,
            other,
            server,
            service,
        })
    }

    /// Puts a FlowLogPolicy in force. The kernel has it once the log has what it asks for.
    fn log(&self, spec: &Value) -> Result<()> {
        flow_log_policy(&self.node.manifests, "log", spec)
    }

    fn records(&self) -> Result<Vec<PolicyRecord>> {
        let records = self.node.agent.flow_records()?;
        records
            .iter()
            .map(|record| serde_json::from_str(&record.line).with_context(|| record.line.clone()))
            .collect()
    }

    /// Waits until the log has this many records, and gives them by what is the same in each run.
    fn wait_for(&self, what: &str, wish: impl Fn(&[PolicyRecord]) -> bool) -> Result<Vec<PolicyRecord>> {
        until(what, || {
            let records = self.records()?;
            Ok(if wish(&records) {
                Ok(records)
            } else {
                Err(format!("{records:#?}"))
            })
        })
    }

    fn connect(&self, from: &End, to: SocketAddr) -> Result<u16> {
        let report = from.place.run(|| traffic::tcp(&Tcp::to(to)))?;
        Ok(report
            .local
            .with_context(|| format!("{} → {to}: {report:?}", from.address.name))?
            .port())
    }
}

fn pod(name: &str) -> Party {
    Party {
        pod_name: Some(name.into()),
        node_name: Some(NODE.into()),
        pod_namespace: Some(NAMESPACE.into()),
        namespace: Some(NAMESPACE.into()),
        ..Party::default()
    }
}

fn policy(name: &str) -> PolicyName {
    PolicyName {
        name: name.into(),
        namespace: Some(NAMESPACE.into()),
        kind: "NetworkPolicy".into(),
    }
}

/// Without what differs from run to run.
fn timeless(record: &PolicyRecord) -> PolicyRecord {
    PolicyRecord {
        timestamp: String::new(),
        seq: 0,
        lost: 0,
        ..record.clone()
    }
}

#[test]
fn each_allowed_connection_is_a_line_for_each_side() -> Result<()> {
    let bed = Bed::new("log-allow")?;
    bed.log(&json!({ "verdicts": ["Allow"] }))?;
    // In force once the first connection is logged.
    until("the log begins", || {
        bed.connect(&bed.client, bed.server.address.at(PORT)[0])?;
        Ok(if bed.records()?.is_empty() {
            Err("nothing".into())
        } else {
            Ok(())
        })
    })?;
    let direct = bed.server.address.at(PORT);
    let by_service = bed.service.at(SERVICE_PORT);
    let mut expected = Vec::new();
    for index in [0, 1] {
        for (to, service) in [(direct[index], None), (by_service[index], Some(()))] {
            let port = bed.connect(&bed.client, to)?;
            for (direction, by, rule) in [
                (LogDirection::Egress, "out", "egress[0]"),
                (LogDirection::Ingress, "in", "ingress[0]"),
            ] {
                expected.push(PolicyRecord {
                    connection: Connection {
                        src_ip: bed.client.address.ips[index],
                        dest_ip: bed.server.address.ips[index],
                        src_port: port,
                        dest_port: PORT,
                        protocol: "tcp".into(),
                        direction,
                    },
                    disposition: Disposition::Allow,
                    policies: vec![policy(by)],
                    src: pod("client"),
                    dest: pod("server"),
                    count: 1,
                    node_name: NODE.into(),
                    timestamp: String::new(),
                    rule: Some(rule.into()),
                    reason: "allowed".into(),
                    service: service.map(|()| ServiceRef::Named {
                        name: "service".into(),
                        namespace: NAMESPACE.into(),
                    }),
                    dry_run: None,
                    seq: 0,
                    lost: 0,
                });
            }
        }
    }
    // Those before said only that it has begun.
    let ports: BTreeSet<u16> = expected.iter().map(|record| record.connection.src_port).collect();
    let of_interest = |records: &[PolicyRecord]| -> Vec<PolicyRecord> {
        records
            .iter()
            .filter(|record| ports.contains(&record.connection.src_port))
            .map(timeless)
            .collect()
    };
    let records = bed.wait_for("all connections", |records| {
        of_interest(records).len() >= expected.len()
    })?;
    let mut seen = of_interest(&records);
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    bed.node.end()
}

/// Sends datagrams that nobody waits for, from one socket or from one each.
fn datagrams(from: &End, to: SocketAddr, count: usize, sockets: usize) -> Result<()> {
    let send = || -> std::io::Result<()> {
        let any = || UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        let sockets = (0..sockets).map(|_| any()).collect::<Result<Vec<_>, _>>()?;
        sockets
            .iter()
            .cycle()
            .take(count)
            .try_for_each(|socket| socket.send_to(b"datagram", to).map(drop))
    };
    Ok(from.place.run(send)??)
}

/// Lines of the same connection as one, and how many there were.
fn folded(records: &[PolicyRecord]) -> BTreeMap<PolicyRecord, (u64, usize)> {
    let mut folded = BTreeMap::new();
    for record in records {
        let key = PolicyRecord {
            count: 0,
            connection: Connection {
                src_port: 0,
                ..record.connection.clone()
            },
            ..timeless(record)
        };
        let (count, lines) = folded.entry(key).or_insert((0, 0));
        *count += record.count;
        *lines += 1;
    }
    folded
}

#[test]
fn denied_packets_are_folded_and_none_is_forgotten() -> Result<()> {
    const COUNT: usize = 200;
    let bed = Bed::new("log-deny")?;
    bed.log(&json!({ "verdicts": ["Deny"], "aggregation": { "denySeconds": 1 } }))?;
    until("the log begins", || {
        datagrams(&bed.other, bed.server.address.at(OTHER_PORT)[0], 1, 1)?;
        Ok(if bed.records()?.is_empty() {
            Err("nothing".into())
        } else {
            Ok(())
        })
    })?;
    let mut expected = BTreeMap::new();
    for (from, to, direction, by) in [
        (&bed.other, &bed.server, LogDirection::Ingress, "in"),
        (&bed.client, &bed.other, LogDirection::Egress, "out"),
    ] {
        for index in [0, 1] {
            datagrams(from, to.address.at(PORT)[index], COUNT, 1)?;
            let record = PolicyRecord {
                connection: Connection {
                    src_ip: from.address.ips[index],
                    dest_ip: to.address.ips[index],
                    src_port: 0,
                    dest_port: PORT,
                    protocol: "udp".into(),
                    direction,
                },
                disposition: Disposition::Deny,
                policies: vec![policy(by)],
                src: pod(&from.address.name),
                dest: pod(&to.address.name),
                count: 0,
                node_name: NODE.into(),
                timestamp: String::new(),
                rule: None,
                reason: "isolated".into(),
                service: None,
                dry_run: None,
                seq: 0,
                lost: 0,
            };
            expected.insert(record, COUNT as u64);
        }
    }
    // An allowed connection is not asked for.
    bed.connect(&bed.client, bed.server.address.at(PORT)[0])?;
    let of_interest = |records: &[PolicyRecord]| -> BTreeMap<PolicyRecord, (u64, usize)> {
        folded(records)
            .into_iter()
            .filter(|(record, _)| record.connection.dest_port == PORT && record.connection.protocol == "udp")
            .collect()
    };
    let records = bed.wait_for("all denials", |records| {
        of_interest(records)
            .values()
            .map(|(count, _)| *count)
            .sum::<u64>()
            >= expected.values().sum()
    })?;
    let seen = of_interest(&records);
    let counts: BTreeMap<PolicyRecord, u64> = seen
        .iter()
        .map(|(record, (count, _))| (record.clone(), *count))
        .collect();
    assert_eq!(counts, expected);
    // A second is a line; sending took longer than that on a slow machine.
    for (record, (_, lines)) in &seen {
        ensure!(*lines <= 10, "{lines} lines for {record:#?}");
    }
    ensure!(
        records
            .iter()
            .all(|record| record.disposition == Disposition::Deny),
        "{records:#?}"
    );
    bed.node.end()
}

/// Whose traffic, which verdicts and which directions.
#[test]
fn only_what_is_asked_for_is_logged() -> Result<()> {
    let bed = Bed::new("log-choice")?;
    // Everything that happens in one round, as who said what about whom.
    let round = |bed: &Bed| -> Result<()> {
        bed.connect(&bed.client, bed.server.address.at(PORT)[0])?;
        datagrams(&bed.other, bed.server.address.at(PORT)[0], 3, 1)?;
        datagrams(&bed.client, bed.other.address.at(PORT)[0], 3, 1)
    };
    let words = |record: &PolicyRecord| {
        let name = |party: &Party| party.pod_name.clone().unwrap_or_default();
        format!(
            "{:?} {} → {} {:?}",
            record.disposition,
            name(&record.src),
            name(&record.dest),
            record.connection.direction
        )
    };
    let (allow_in, allow_out) = ("Allow client → server Ingress", "Allow client → server Egress");
    let (deny_in, deny_out) = ("Deny other → server Ingress", "Deny client → other Egress");
    for (spec, wanted) in [
        (json!({}), vec![allow_out, allow_in, deny_in, deny_out]),
        (
            json!({ "subject": { "podSelector": { "matchLabels": { "app": "server" } } } }),
            vec![allow_in, deny_in],
        ),
        (
            json!({ "verdicts": ["Allow"], "directions": ["Egress"] }),
            vec![allow_out],
        ),
        (
            json!({ "verdicts": ["Deny"], "directions": ["Egress"] }),
            vec![deny_out],
        ),
        (
            json!({ "subject": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "elsewhere" } } } }),
            vec![],
        ),
        (
            json!({ "subject": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "default" } } }, "verdicts": ["Deny"] }),
            vec![deny_in, deny_out],
        ),
    ] {
        let mut spec = spec;
        spec["aggregation"] = json!({ "denySeconds": 0 });
        bed.log(&spec)?;
        let wanted: BTreeSet<String> = wanted.into_iter().map(str::to_string).collect();
        until(&format!("{spec}"), || {
            let skip = bed.records()?.len();
            round(&bed)?;
            sleep(Duration::from_millis(300));
            let seen: BTreeSet<String> = bed.records()?[skip..].iter().map(words).collect();
            Ok(if seen == wanted {
                Ok(())
            } else {
                Err(format!("{seen:#?}"))
            })
        })?;
    }
    // Off altogether.
    bed.node.manifests.remove("flowlogpolicy-log.yaml")?;
    until("the log ends", || {
        let skip = bed.records()?.len();
        round(&bed)?;
        sleep(Duration::from_millis(300));
        let more = bed.records()?.len() - skip;
        Ok(if more == 0 {
            Ok(())
        } else {
            Err(format!("{more} more lines"))
        })
    })?;
    bed.node.end()
}

#[test]
fn one_in_so_many_allowed_connections_is_logged() -> Result<()> {
    const CONNECTIONS: usize = 500;
    let bed = Bed::new("log-sampling")?;
    bed.log(&json!({ "verdicts": ["Allow"], "directions": ["Ingress"], "sampling": { "allowEvery": 10 }, "budget": { "recordsPerSecond": 10_000 } }))?;
    let to = bed.server.address.at(OTHER_PORT)[0];
    until("the log begins", || {
        datagrams(&bed.client, to, 50, 50)?;
        Ok(if bed.records()?.is_empty() {
            Err("nothing".into())
        } else {
            Ok(())
        })
    })?;
    sleep(Duration::from_millis(300));
    let skip = bed.records()?.len();
    datagrams(&bed.client, to, CONNECTIONS, CONNECTIONS)?;
    sleep(Duration::from_millis(500));
    let lines = bed.records()?.len() - skip;
    // 50 are expected; one run in some millions is further away than this.
    ensure!(
        (15..=90).contains(&lines),
        "{lines} lines for {CONNECTIONS} connections"
    );
    bed.node.end()
}

/// What the kernel has counted, over all rules, as the metrics have it.
fn counted(node: &Node) -> Result<(f64, f64)> {
    Ok((
        node.agent.metric("weir_rule_connections_allowed_total", &[])?,
        node.agent.metric("weir_rule_packets_denied_total", &[])?,
    ))
}

fn read_log(node: &Node) -> Result<Reconciled> {
    let text = fs::read_to_string(node.agent.flow_log()).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(reconcile(complete.lines()))
}

/// Lines and losses are what the kernel has counted: with room for all, rule by rule; with a budget that is too small,
/// altogether.
#[test]
fn lines_and_losses_are_what_the_kernel_counted() -> Result<()> {
    for (name, budget, loses) in [("log-all", 100_000, false), ("log-budget", 5, true)] {
        let node = Node::start(name)?;
        // Before the first policy, so that nothing is decided without it.
        flow_log_policy(
            &node.manifests,
            "log",
            &json!({ "budget": { "recordsPerSecond": budget }, "aggregation": { "denySeconds": 1 } }),
        )?;
        let (client, other, server) = (
            node.pod("client", 1)?,
            node.pod("other", 2)?,
            node.pod("server", 3)?,
        );
        expect(&[
            tcp(&client, &server, PORT).answered(),
            tcp(&other, &server, PORT).answered(),
        ])?;
        network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
        network_policy(&node.manifests, "out", &allow_egress("client", "server"))?;
        expect(&[
            tcp(&other, &server, PORT).silent(),
            tcp(&client, &other, PORT).silent(),
            udp(&client, &server, PORT).answered(),
        ])?;
        for to in server.address.at(PORT) {
            datagrams(&client, to, 300, 300)?;
            datagrams(&other, to, 300, 100)?;
        }
        let rules = [
            ("in", LogDirection::Ingress, "ingress", "ingress[0]"),
            ("out", LogDirection::Egress, "egress", "egress[0]"),
        ];
        let sums = until("the log adds up", || {
            let (allowed, denied) = counted(&node)?;
            let sums = read_log(&node)?;
            let added_up = (sums.counted() + sums.lost) as f64 == allowed + denied;
            Ok(if added_up {
                Ok(sums)
            } else {
                Err(format!("{allowed} allowed, {denied} denied: {sums:#?}"))
            })
        })?;
        ensure!((sums.unreadable, sums.gaps) == (0, 0), "{sums:#?}");
        ensure!((sums.lost > 0) == loses, "{sums:#?}");
        ensure!(sums.counted() > 0);
        if !loses {
            for (policy_name, direction, word, rule) in rules {
                let of = |metric: &str, rule: &str| {
                    let labels = [
                        format!("name=\"{policy_name}\""),
                        format!("direction=\"{word}\""),
                        format!("rule=\"{rule}\""),
                    ];
                    node.agent.metric(metric, &labels.each_ref().map(String::as_str))
                };
                let sum = |rule: Option<&str>| {
                    let key = RuleKey {
                        direction,
                        policies: vec![policy(policy_name)],
                        rule: rule.map(str::to_string),
                    };
                    sums.rules.get(&key).copied().unwrap_or_default()
                };
                assert_eq!(
                    sum(Some(rule)).allowed as f64,
                    of("weir_rule_connections_allowed_total", rule)?,
                    "{policy_name}"
                );
                assert_eq!(
                    sum(None).denied as f64,
                    of("weir_rule_packets_denied_total", "isolation")?,
                    "{policy_name}"
                );
                ensure!(
                    sum(Some(rule)).allowed >= 600 && sum(None).denied > 0,
                    "{sums:#?}"
                );
            }
        }
        node.end()?;
    }
    Ok(())
}
