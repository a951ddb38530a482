//! Flows whose answers follow from the API's words by hand: `cases/*.yaml`.
#![expect(clippy::unwrap_used, reason = "a case that cannot be read fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use weir_policy::cluster::Cluster;
use weir_policy::explain::nearest;
use weir_policy::oracle;
use weir_policy::resolved::{Direction, Flow, Verdict};
use weir_policy::snapshot::{ClusterNetworkPolicy, NetworkPolicy, Node, ObjectName, Pod, Snapshot};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    objects: Vec<Value>,
    #[serde(default)]
    flows: Vec<Asked>,
    #[serde(default)]
    problems: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    from: String,
    to: String,
    family: Option<u8>,
    protocol: Option<String>,
    #[serde(default)]
    port: u16,
    egress: Option<String>,
    ingress: Option<String>,
    dry_run_egress: Option<String>,
    dry_run_ingress: Option<String>,
    nearest: Option<String>,
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_file_is_a_case() {
            let listed: BTreeSet<String> = [$(stringify!($name)),*].map(str::to_owned).into();
            assert_eq!(files(), listed);
        }
    };
}

cases! {
    default_deny selectors ports named_ports ip_blocks policy_types union tiers priority cluster_peers pass dry_run
    malformed
}

fn files() -> BTreeSet<String> {
    let entries = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let cases = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn check(name: &str) {
    let text = fs::read_to_string(directory().join(format!("{name}.yaml"))).unwrap();
    let case: Case = serde_yaml_ng::from_str(&text).unwrap();
    let cluster = Cluster::new(snapshot(&case.objects));
    let problems: BTreeSet<String> = cluster.lowered.problems.iter().map(short).collect();
    assert_eq!(problems, case.problems, "problems of {name}");
    for asked in &case.flows {
        check_flow(&cluster, asked);
    }
}

fn short(problem: &weir_policy::problem::Problem) -> String {
    format!("{} {} {}", problem.object, problem.field, problem.code)
}

fn check_flow(cluster: &Cluster, asked: &Asked) {
    let flow = flow(&cluster.snapshot, asked);
    let expected = expected(asked);
    let answer = cluster.answer(&flow);
    let spelled: BTreeMap<&str, Option<String>> = spell(&answer).collect();
    let spelled_or_allow = spelled
        .iter()
        .map(|(key, it)| (*key, it.clone().unwrap_or_else(|| "allow".to_owned())));
    assert_eq!(
        spelled_or_allow.collect::<BTreeMap<_, _>>(),
        expected,
        "resolved policy of {asked:#?}"
    );
    let words = oracle::answer(&cluster.snapshot, &flow);
    assert!(
        weir_policy::cluster::is_accepted(&answer, &words),
        "the oracle of {asked:#?}: {words:#?}"
    );
    if let Some(expected) = &asked.nearest {
        assert_eq!(
            nearest_rules(cluster, &flow, &answer),
            [expected.as_str()],
            "the nearest rule for {asked:#?}"
        );
    }
}

/// For each direction that is denied.
fn nearest_rules(cluster: &Cluster, flow: &Flow, answer: &oracle::Answer) -> Vec<String> {
    let sides = [
        (&answer.egress, Direction::Egress),
        (&answer.ingress, Direction::Ingress),
    ];
    let denied = sides.into_iter().filter(|(judgement, _)| {
        judgement
            .as_ref()
            .is_some_and(|judgement| judgement.enforced.verdict == Verdict::Deny)
    });
    let (snapshot, policies) = (&cluster.snapshot, &cluster.lowered.policies);
    let nearest = denied.filter_map(|(_, direction)| nearest(snapshot, policies, flow, direction));
    nearest.map(|miss| miss.to_string()).collect()
}

fn expected(asked: &Asked) -> BTreeMap<&'static str, String> {
    let word = |answer: &Option<String>| answer.clone().unwrap_or_else(|| "allow".to_owned());
    BTreeMap::from([
        ("egress", word(&asked.egress)),
        ("ingress", word(&asked.ingress)),
        (
            "dryRunEgress",
            asked
                .dry_run_egress
                .clone()
                .unwrap_or_else(|| word(&asked.egress)),
        ),
        (
            "dryRunIngress",
            asked
                .dry_run_ingress
                .clone()
                .unwrap_or_else(|| word(&asked.ingress)),
        ),
    ])
}

fn spell(answer: &oracle::Answer) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let ruling = |ruling: &oracle::Ruling| {
        let verdict = match ruling.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let causes = ruling.causes.iter().map(|cause| format!(", {cause}"));
        format!("{verdict}{}", causes.collect::<String>())
    };
    let enforced = |side: &Option<oracle::Judgement>| side.as_ref().map(|side| ruling(&side.enforced));
    let dry_run = |side: &Option<oracle::Judgement>| side.as_ref().map(|side| ruling(&side.dry_run));
    [
        ("egress", enforced(&answer.egress)),
        ("ingress", enforced(&answer.ingress)),
        ("dryRunEgress", dry_run(&answer.egress)),
        ("dryRunIngress", dry_run(&answer.ingress)),
    ]
    .into_iter()
}

fn flow(snapshot: &Snapshot, asked: &Asked) -> Flow {
    let (protocol, has_ports) = match (asked.protocol.as_deref(), asked.family) {
        (None | Some("TCP"), _) => (6, true),
        (Some("UDP"), _) => (17, true),
        (Some("SCTP"), _) => (132, true),
        (Some("ICMP"), Some(6)) => (58, false),
        (Some("ICMP"), _) => (1, false),
        (Some(other), _) => panic!("no protocol {other}"),
    };
    assert_eq!(has_ports, asked.port != 0, "port of {asked:?}");
    let address = |end: &str| address(snapshot, end, asked.family.unwrap_or(4));
    Flow {
        source: address(&asked.from),
        destination: address(&asked.to),
        protocol,
        destination_port: asked.port,
    }
}

fn address(snapshot: &Snapshot, end: &str, family: u8) -> IpAddr {
    if let Ok(address) = end.parse() {
        return address;
    }
    let (namespace, name) = end.split_once('/').unwrap();
    let pod = snapshot.pods.get(&ObjectName::new(namespace, name)).unwrap();
    *pod.addresses
        .iter()
        .find(|address| address.is_ipv4() == (family == 4))
        .unwrap()
}

fn snapshot(objects: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for object in objects {
        add(&mut snapshot, object);
    }
    snapshot
}

fn add(snapshot: &mut Snapshot, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Namespace" => {
            let namespace: core::Namespace = read(object);
            let labels = namespace.metadata.labels.unwrap_or_default();
            snapshot
                .namespaces
                .insert(namespace.metadata.name.unwrap(), labels);
        }
        "Node" => {
            let node: core::Node = read(object);
            snapshot
                .nodes
                .insert(node.metadata.name.clone().unwrap(), Node::from(&node));
        }
        "Pod" => {
            let pod: core::Pod = read(object);
            let metadata = pod.metadata.clone();
            let id = ObjectName::new(metadata.namespace.unwrap(), metadata.name.unwrap());
            snapshot.pods.insert(id, Pod::from(&pod));
        }
        "NetworkPolicy" => {
            let policy: networking::NetworkPolicy = read(object);
            let metadata = policy.metadata;
            let annotations = metadata.annotations.unwrap_or_default();
            let spec = policy.spec.unwrap_or_default();
            let id = ObjectName::new(metadata.namespace.unwrap(), metadata.name.unwrap());
            snapshot
                .network_policies
                .insert(id, NetworkPolicy { annotations, spec });
        }
        "ClusterNetworkPolicy" => {
            let policy: weir_api::ClusterNetworkPolicy = read(object);
            let annotations = policy.metadata.annotations.unwrap_or_default();
            let spec = policy.spec;
            let name = policy.metadata.name.unwrap();
            snapshot
                .cluster_network_policies
                .insert(name, ClusterNetworkPolicy { annotations, spec });
        }
        kind => panic!("no kind {kind}"),
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> T {
    serde_yaml_ng::from_value(object.clone()).unwrap()
}
