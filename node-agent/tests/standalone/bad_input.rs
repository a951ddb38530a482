//! Manifests with mistakes: each is told of with its place, all others work, and nothing opens.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_testbed::traffic::{Protocol, Stream, StreamReport, Tcp};

use crate::address::End;
use crate::node::{Node, PORT};
use crate::policy::{allow_ingress, network_policy};
use crate::probe::{expect, expect_at_once, tcp, udp};
use crate::wait::{PATIENCE, until};

/// A server that only the client may reach, and somebody else.
struct Bed {
    node: Node,
    client: End,
    other: End,
    server: End,
}

/// Precedes a message when it does not hold any more.
const MENDED: &str = "no longer: ";

impl Bed {
    fn new(test: &str) -> Result<Bed> {
        let node = Node::start(test)?;
        let (client, other, server) = (
            node.pod("client", 1)?,
            node.pod("other", 2)?,
            node.pod("server", 3)?,
        );
        network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
        expect(&[
            tcp(&client, &server, PORT).answered(),
            tcp(&other, &server, PORT).silent(),
        ])?;
        Ok(Bed {
            node,
            client,
            other,
            server,
        })
    }

    /// What is valid is in force, and nothing else is open.
    fn holds(&self) -> Result<()> {
        expect_at_once(&[
            tcp(&self.client, &self.server, PORT).answered(),
            udp(&self.client, &self.server, PORT).answered(),
            tcp(&self.other, &self.server, PORT).silent(),
            udp(&self.other, &self.server, PORT).silent(),
            tcp(&self.other, &self.client, PORT).answered(),
        ])
    }

    /// Waits until the agent has logged these about manifests, and nothing else.
    fn told(&self, expected: &[&str]) -> Result<()> {
        let wanted: BTreeSet<&str> = expected.iter().copied().collect();
        until("the agent does not say what it should", || {
            let messages = self.node.messages("problems")?;
            let seen: BTreeSet<&str> = messages
                .iter()
                .map(String::as_str)
                .filter(|text| !text.starts_with(MENDED))
                .collect();
            Ok(if seen == wanted {
                Ok(())
            } else {
                Err(format!("{seen:#?}"))
            })
        })
    }
}

/// The mistakes that no object can be made of, and those in it.
#[test]
fn every_mistake_is_told_of_with_its_place() -> Result<()> {
    let bed = Bed::new("bad-mistakes")?;
    let files: [(&str, String, &[&str]); 12] = [
        (
            "a-malformed.yaml",
            "kind: [".into(),
            &[
                "a-malformed.yaml:2: document 1: did not find expected node content, while parsing a flow node; nothing of it is in force (MalformedYaml)",
            ],
        ),
        (
            "b-unknown.yaml",
            object("example.org/v1", "Widget", "w", "spec: {}"),
            &[
                "b-unknown.yaml:2: document 1: kind: Widget of example.org/v1 is not read here; nothing of it is in force (UnknownKind)",
            ],
        ),
        (
            "c-selector.yaml",
            policy(
                "selector",
                "podSelector: {matchLabels: {app: server}}\n  ingress:\n  - from:\n    - podSelector: {matchExpressions: [{key: app, operator: Inn, values: [other]}]}",
            ),
            &[
                "c-selector.yaml:9: document 1: NetworkPolicy default/selector: spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: \"Inn\" is not one of In, NotIn, Exists, DoesNotExist; nothing of it is in force (InvalidValue)",
            ],
        ),
        // Could be about every pod, and is about none.
        (
            "c-subject.yaml",
            policy(
                "subject",
                "podSelector: {matchExpressions: [{key: app, operator: In}]}",
            ),
            &[
                "c-subject.yaml:6: document 1: NetworkPolicy default/subject: spec.podSelector.matchExpressions[0].values: the operator In needs at least one value; nothing of it is in force (InvalidValue)",
            ],
        ),
        (
            "d-ports.yaml",
            policy(
                "ports",
                "podSelector: {matchLabels: {app: server}}\n  ingress:\n  - ports:\n    - {port: 9000, endPort: 8000}\n    - {port: 70000}\n    - {port: web, endPort: 9}",
            ),
            &[
                "d-ports.yaml:9: NetworkPolicy default/ports: spec.ingress[0].ports[0].endPort: the range ends at 8000, before it begins at 9000",
                "d-ports.yaml:10: NetworkPolicy default/ports: spec.ingress[0].ports[1].port: 70000 is not a port of 1 to 65535",
                "d-ports.yaml:11: NetworkPolicy default/ports: spec.ingress[0].ports[2].endPort: endPort cannot follow a port that is a name",
            ],
        ),
        (
            "e-nobody.yaml",
            policy(
                "nobody",
                "podSelector: {matchLabels: {app: none}}\n  ingress: [{}]",
            ),
            &[
                "e-nobody.yaml:6: NetworkPolicy default/nobody: spec.podSelector: no pod on any node is selected",
            ],
        ),
        (
            "f-cidr.yaml",
            policy(
                "cidr",
                "podSelector: {matchLabels: {app: client}}\n  policyTypes: [Egress]\n  egress:\n  - {}\n  - to:\n    - ipBlock: {cidr: 10.244.1.3/16}\n    - ipBlock: {cidr: 10.0.0.0/33}\n    - ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/24]}",
            ),
            &[
                "f-cidr.yaml:11: NetworkPolicy default/cidr: spec.egress[1].to[0].ipBlock.cidr: \"10.244.1.3/16\" has bits set past its prefix length; it is read as 10.244.0.0/16",
                "f-cidr.yaml:12: NetworkPolicy default/cidr: spec.egress[1].to[1].ipBlock.cidr: \"10.0.0.0/33\" needs a prefix length of 0 to 32",
                "f-cidr.yaml:13: NetworkPolicy default/cidr: spec.egress[1].to[2].ipBlock.except[0]: 11.0.0.0/24 is not a part of 10.0.0.0/8; it takes out what the two share",
            ],
        ),
        // Before the policy's own file in the order of names.
        (
            "g-duplicate.yaml",
            policy("in", "podSelector: {}\n  ingress: [{}]"),
            &[
                "g-duplicate.yaml:1: document 1: NetworkPolicy default/in: metadata.name: it is in networkpolicy-default-in.yaml:1 already, which is the one that counts; nothing of it is in force (Duplicate)",
            ],
        ),
        (
            "g-typo.yaml",
            policy("typo", "podSelctor: {}\n  ingress: [{}]"),
            &[
                "g-typo.yaml:6: document 1: NetworkPolicy default/typo: spec.podSelctor: NetworkPolicy has no such field; nothing of it is in force (UnknownField)",
            ],
        ),
        (
            "h-wrong-type.yaml",
            policy(
                "wrong-type",
                "podSelector: {matchLabels: [server]}\n  ingress: [{}]",
            ),
            &[
                "h-wrong-type.yaml:6: document 1: NetworkPolicy default/wrong-type: spec.podSelector.matchLabels: invalid type: sequence, expected a map; nothing of it is in force (WrongType)",
            ],
        ),
        // Valid: ranges may overlap. In one file with something that is not.
        (
            "i-overlap.yaml",
            format!(
                "{}---\n- a list\n",
                policy(
                    "overlap",
                    "podSelector: {matchLabels: {app: server}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8000, endPort: 8090}, {port: 8080, endPort: 9000}]}]"
                )
            ),
            &[
                "i-overlap.yaml:9: document 2: this is no Kubernetes object: one has an apiVersion and a kind; nothing of it is in force (NotAnObject)",
            ],
        ),
        (
            "z-duplicate.yaml",
            policy("in", "podSelector: {}\n  ingress: [{}]"),
            &[
                "z-duplicate.yaml:1: document 1: NetworkPolicy default/in: metadata.name: it is in networkpolicy-default-in.yaml:1 already, which is the one that counts; nothing of it is in force (Duplicate)",
            ],
        ),
    ];
    for (file, text, _) in &files {
        bed.node.manifests.write(file, text)?;
    }
    let expected: Vec<&str> = files
        .iter()
        .flat_map(|(_, _, messages)| messages.iter().copied())
        .collect();
    bed.told(&expected)?;
    bed.holds()?;
    bed.node.end()
}

/// An edit that breaks a policy leaves it in force as it was, until it is mended or removed.
#[test]
fn a_broken_edit_changes_nothing() -> Result<()> {
    let bed = Bed::new("bad-edit")?;
    let (file, manifests) = ("networkpolicy-default-in.yaml", &bed.node.manifests);
    let sound = manifests.read(file)?;
    let mut told: Vec<&str> = Vec::new();
    for (broken, messages) in [
        (
            sound.replace(
                "  podSelector:\n    matchLabels:\n      app: server",
                "  podSelctor: {}",
            ),
            vec![
                "networkpolicy-default-in.yaml:12: document 1: NetworkPolicy default/in: spec.podSelctor: NetworkPolicy has no such field; the version that was read before stays in force (UnknownField)",
            ],
        ),
        (
            sound.replace(
                "  podSelector:\n    matchLabels:\n      app: server",
                "  podSelector:\n    matchExpressions: [{key: app, operator: Exists, values: [server]}]",
            ),
            vec![
                "networkpolicy-default-in.yaml:13: document 1: NetworkPolicy default/in: spec.podSelector.matchExpressions[0].values: the operator Exists takes no values; the version that was read before stays in force (InvalidValue)",
            ],
        ),
        (
            sound.replace("spec:", "spec: ["),
            vec![
                "networkpolicy-default-in.yaml:8: document 1: did not find expected node content, while parsing a flow node; the version that was read before stays in force (MalformedYaml)",
            ],
        ),
        (
            sound.replace("kind: NetworkPolicy", "kind: NetworkPolice"),
            vec![
                "networkpolicy-default-in.yaml:2: document 1: kind: NetworkPolice of networking.k8s.io/v1 is not read here; the version that was read before stays in force (UnknownKind)",
            ],
        ),
        (
            "{".to_string(),
            vec![
                "networkpolicy-default-in.yaml:2: document 1: did not find expected node content, while parsing a flow node; the version that was read before stays in force (MalformedYaml)",
            ],
        ),
    ] {
        ensure!(broken != sound);
        manifests.write(file, &broken)?;
        told.extend(messages);
        bed.told(&told)?;
        bed.holds()?;
        manifests.write(file, &sound)?;
    }
    let mended: BTreeSet<String> = told.iter().map(|text| format!("{MENDED}{text}")).collect();
    until("the agent does not say that all is mended", || {
        let messages: BTreeSet<String> = bed.node.messages("problems")?.into_iter().collect();
        Ok(if messages.is_superset(&mended) {
            Ok(())
        } else {
            Err(format!("{messages:#?}"))
        })
    })?;
    bed.holds()?;
    manifests.remove(file)?;
    expect(&[tcp(&bed.other, &bed.server, PORT).answered()])?;
    bed.node.end()
}

/// An agent that starts with a policy that it cannot read does not know whom it is about.
#[test]
fn a_start_with_a_broken_policy_closes_its_namespace() -> Result<()> {
    let mut bed = Bed::new("bad-start")?;
    let file = "networkpolicy-default-in.yaml";
    let sound = bed.node.manifests.read(file)?;
    bed.node.agent.kill9()?;
    bed.node
        .manifests
        .write(file, &sound.replace("podSelector:", "podSelctor:"))?;
    bed.node.agent.start_again()?;
    expect_at_once(&[
        tcp(&bed.client, &bed.server, PORT).silent(),
        tcp(&bed.other, &bed.server, PORT).silent(),
        tcp(&bed.server, &bed.node.outside, PORT).silent(),
        tcp(&bed.node.end, &bed.server, PORT).answered(),
    ])?;
    ensure!(bed.node.packets("pod-closed")? > 0);
    bed.node.manifests.write(file, &sound)?;
    expect(&[
        tcp(&bed.client, &bed.server, PORT).answered(),
        tcp(&bed.other, &bed.server, PORT).silent(),
    ])?;
    bed.node.end()
}

/// An agent that starts with two policies of one name does not know which of them was in force.
#[test]
fn a_start_with_two_policies_of_one_name_closes_their_namespace() -> Result<()> {
    let mut bed = Bed::new("bad-twice")?;
    let (file, copy) = ("networkpolicy-default-in.yaml", "g-duplicate.yaml");
    bed.node.agent.kill9()?;
    let open = policy("in", "podSelector: {}\n  ingress: [{}]");
    bed.node.manifests.write(copy, &open)?;
    bed.node.agent.start_again()?;
    let closed = [
        tcp(&bed.client, &bed.server, PORT).silent(),
        tcp(&bed.other, &bed.server, PORT).silent(),
        tcp(&bed.node.end, &bed.server, PORT).answered(),
    ];
    expect_at_once(&closed)?;
    bed.told(&[
        "g-duplicate.yaml:1: document 1: NetworkPolicy default/in: metadata.name: it is in networkpolicy-default-in.yaml:1 too, and differs there; the pods of namespace default are closed until this is mended (Duplicate)",
        "networkpolicy-default-in.yaml:1: document 1: NetworkPolicy default/in: metadata.name: it is in g-duplicate.yaml:1 too, and differs there; the pods of namespace default are closed until this is mended (Duplicate)",
    ])?;
    expect_at_once(&closed)?;
    bed.node.manifests.remove(copy)?;
    expect(&[
        tcp(&bed.client, &bed.server, PORT).answered(),
        tcp(&bed.other, &bed.server, PORT).silent(),
    ])?;
    // From one file to another: what the last one says.
    bed.node.manifests.write(copy, &open)?;
    bed.node.manifests.remove(file)?;
    expect(&[tcp(&bed.other, &bed.server, PORT).answered()])?;
    bed.node.end()
}

const RULES: usize = 100_000;
/// A debug build takes a quarter of a minute.
const TIME_FOR_RULES: Duration = Duration::from_secs(120);

/// As many rules as nobody writes by hand: each with a block and a port of its own.
#[test]
fn a_policy_of_very_many_rules_is_programmed_while_traffic_flows() -> Result<()> {
    let bed = Bed::new("bad-many")?;
    let mut streams = Vec::new();
    for to in bed.server.address.at(PORT) {
        let stream = Stream {
            linger_millis: 5000,
            ..Stream::new(Protocol::Udp, to, 100, Duration::from_secs(300))
        };
        streams.push(bed.client.place.stream(&stream)?);
    }
    for stream in &streams {
        stream.wait_until("under way", PATIENCE, |report| report.received > 10)?;
    }
    let mut rules = String::from("podSelector: {matchLabels: {app: server}}\n  ingress:");
    for rule in 0..RULES {
        let (a, b, c) = (rule >> 16, rule >> 8 & 0xff, rule & 0xff);
        let port = 10_000 + rule % 50_000;
        let _ = write!(
            rules,
            "\n  - from: [{{ipBlock: {{cidr: 172.{}.{b}.{c}/32}}}}]\n    ports: [{{port: {port}}}]",
            16 + a
        );
    }
    // The last one is what it takes.
    let _ = write!(
        rules,
        "\n  - from: [{{podSelector: {{matchLabels: {{app: other}}}}}}]\n    ports: [{{port: {PORT}}}]"
    );
    bed.node.manifests.write("many.yaml", &policy("many", &rules))?;
    let took = wait_for_rules(&bed, true)?;
    eprintln!("{RULES} rules: in force after {took:?}");
    expect_at_once(&[
        tcp(&bed.client, &bed.server, PORT).answered(),
        tcp(&bed.other, &bed.server, PORT).answered(),
        udp(&bed.other, &bed.server, PORT).silent(),
        tcp(&bed.node.outside, &bed.server, PORT).silent(),
    ])?;
    bed.node.manifests.remove("many.yaml")?;
    wait_for_rules(&bed, false)?;
    for stream in streams {
        let report = stream.stop()?;
        let sound = StreamReport {
            sent: report.sent,
            received: report.sent,
            reordered: report.reordered,
            max_gap_millis: report.max_gap_millis,
            silent_millis: report.silent_millis,
            ..StreamReport::default()
        };
        assert_eq!(report, sound);
    }
    bed.node.end()
}

/// Waits until the other client gets in, or does not any more; how long that took.
fn wait_for_rules(bed: &Bed, in_force: bool) -> Result<Duration> {
    let start = Instant::now();
    let request = Tcp::to(bed.server.address.at(PORT)[0]);
    while bed.other.place.tcp(&request)?.greeting.is_some() != in_force {
        ensure!(
            start.elapsed() < TIME_FOR_RULES,
            "in force, {in_force}: not after {TIME_FOR_RULES:?}"
        );
    }
    Ok(start.elapsed())
}

fn object(api_version: &str, kind: &str, name: &str, rest: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n{rest}\n")
}

fn policy(name: &str, spec: &str) -> String {
    object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name,
        &format!("spec:\n  {spec}"),
    )
}
