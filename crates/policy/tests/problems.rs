//! Nothing that somebody wrote is dropped without a word, and each word says where.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use weir_api::flow_log_policy::{
    Aggregation, FileSink, FlowLogPolicySpec, LogSubject, LogVerdict, Sampling, Sink,
};
use weir_policy::arbitrary;
use weir_policy::cluster::Cluster;
use weir_policy::lower::{FlowLog, flow_log_policy};
use weir_policy::model::{Peers, PodSelector, PolicyKind, PolicyRef, Ports, Rules};
use weir_policy::problem::{Code, Problem, Severity};
use weir_policy::resolved::{Direction, Verdict};
use weir_policy::snapshot::Snapshot;
use weir_policy::span::{selects_nothing, spans};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/problems.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_left_out_has_a_problem(snapshot in arbitrary::snapshot()) {
        let lowered = weir_policy::lower(&snapshot);
        prop_assert!(lowered.problems.is_sorted());
        for policy in lowered.policies.values() {
            let object = object(&snapshot, &policy.reference);
            let problems = lowered.problems.iter().filter(|problem| problem.object == (&policy.reference).into());
            let problems: Vec<&Problem> = problems.collect();
            for problem in &problems {
                prop_assert!(is_place_in(&object, &problem.field), "{problem} in {object:#}");
                prop_assert!(!problem.message.is_empty());
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                for place in left_out(policy.rules(direction), &object["spec"], direction) {
                    let has_problem = problems.iter().any(|problem| problem.field.starts_with(&place));
                    let ignored = problems.iter().any(|problem| problem.code == Code::IgnoredRules);
                    let subject = problems.iter().any(|problem| {
                        problem.field.starts_with("spec.subject") || problem.field.starts_with("spec.podSelector")
                    });
                    prop_assert!(has_problem || ignored || subject, "{place} of {object:#}\n{policy:#?}");
                }
            }
        }
    }

    #[test]
    fn without_errors_no_rule_is_changed(snapshot in arbitrary::snapshot()) {
        let lowered = weir_policy::lower(&snapshot);
        let bad: BTreeSet<_> = lowered.problems.iter()
            .filter(|problem| problem.severity() == Severity::Error)
            .map(|problem| problem.object.clone())
            .collect();
        for policy in lowered.policies.values().filter(|policy| !bad.contains(&(&policy.reference).into())) {
            let spec = &object(&snapshot, &policy.reference)["spec"];
            for direction in [Direction::Ingress, Direction::Egress] {
                let rules = policy.rules(direction);
                let isolates = policy.reference.kind == PolicyKind::ClusterNetworkPolicy || rules.isolates;
                let written = spec[direction.to_string()].as_array().map_or(0, Vec::len);
                prop_assert_eq!(rules.rules.len(), if isolates { written } else { 0 }, "{:#}", spec);
            }
        }
    }

    #[test]
    fn a_span_is_the_nodes_of_the_selected_pods(snapshot in arbitrary::snapshot()) {
        let cluster = Cluster::new(snapshot);
        let policies = &cluster.lowered.policies;
        let spans = spans(policies, &cluster.snapshot);
        for (reference, policy) in policies {
            let selected = cluster.keys.iter().filter(|(_, key)| policy.subject.matches(key));
            let nodes: BTreeSet<String> = selected.map(|(id, _)| cluster.snapshot.pods[id].node.clone()).collect();
            prop_assert_eq!(&spans[reference], &nodes);
        }
        let idle: Vec<_> = selects_nothing(&spans).into_iter().map(|problem| problem.object).collect();
        let expected: Vec<_> =
            policies.keys().filter(|reference| spans[*reference].is_empty()).map(Into::into).collect();
        prop_assert_eq!(idle, expected);
    }
}

fn object(snapshot: &Snapshot, reference: &PolicyRef) -> Value {
    let (annotations, spec) = match reference.kind {
        PolicyKind::NetworkPolicy => {
            let mut policies = snapshot.network_policies.iter();
            let (_, policy) = policies
                .find(|(id, _)| {
                    Some(&id.namespace) == reference.namespace.as_ref() && id.name == reference.name
                })
                .expect("a policy of the snapshot");
            (&policy.annotations, json!(policy.spec))
        }
        PolicyKind::ClusterNetworkPolicy => {
            let policy = &snapshot.cluster_network_policies[&reference.name];
            (&policy.annotations, json!(policy.spec))
        }
    };
    json!({ "metadata": { "annotations": annotations }, "spec": spec })
}

/// Whether a path leads to something in the object, or to a field that could stand there.
fn is_place_in(object: &Value, path: &str) -> bool {
    let mut place = object;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = next_step(rest);
        let next = match place {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Object(map) => map.get(step),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        match next {
            Some(next) => (place, rest) = (next, after),
            None => return after.is_empty() && place.is_object(),
        }
    }
    true
}

/// `a.b[0].c` → `a`; `[0].c` → `0`.
fn next_step(path: &str) -> (&str, &str) {
    if let Some(index) = path.strip_prefix('[') {
        let (index, rest) = index.split_once(']').expect("a closed bracket");
        return (index, rest.strip_prefix('.').unwrap_or(rest));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    (
        &path[..end],
        path[end..].strip_prefix('.').unwrap_or(&path[end..]),
    )
}

/// Paths of the rules that are missing, and of lists of which something is.
fn left_out(rules: &Rules, spec: &Value, direction: Direction) -> Vec<String> {
    let list = direction.to_string();
    let written = spec[&list].as_array().cloned().unwrap_or_default();
    let places = written.iter().enumerate().map(|(index, written)| {
        let path = format!("spec.{list}[{index}]");
        let Some(rule) = rules.rules.iter().find(|rule| rule.index == index) else {
            return Some(path);
        };
        let count = |field: &str| {
            written[field]
                .as_array()
                .map_or(0, |items| items.iter().map(width).sum())
        };
        let peers: usize = count("from") + count("to");
        let ports: usize = count("ports") + count("protocols");
        let peers_kept = match &rule.peers {
            Peers::Any => 0,
            Peers::Of(peers) => peers.len(),
        };
        let ports_kept = match &rule.ports {
            Ports::Any => 0,
            Ports::Of(ports) => ports.len(),
        };
        ((peers_kept, ports_kept) != (peers, ports)).then_some(path)
    });
    places.flatten().collect()
}

/// How many peers one item becomes: as many as it has networks.
fn width(item: &Value) -> usize {
    item["networks"].as_array().map_or(1, Vec::len)
}

#[test]
fn a_flow_log_policy_is_read_with_its_numbers_inside_their_limits() {
    let spec = FlowLogPolicySpec {
        subject: Some(LogSubject::default()),
        verdicts: vec![LogVerdict::Deny, LogVerdict::Deny],
        sampling: Sampling { allow_every: 70_000 },
        aggregation: Aggregation { deny_seconds: -1 },
        sink: Sink {
            file: FileSink {
                path: "policy.log".to_owned(),
                max_size_megabytes: 0,
                max_files: 0,
            },
        },
        ..FlowLogPolicySpec::default()
    };
    let (log, problems) = flow_log_policy("all", &spec);
    let expected = FlowLog {
        subject: Some(PodSelector::everything()),
        verdicts: BTreeSet::from([Verdict::Deny]),
        directions: BTreeSet::from([Direction::Ingress, Direction::Egress]),
        allow_every: 65_535,
        deny_seconds: 0,
        records_per_second: 500,
        path: "policy.log".to_owned(),
        max_size_megabytes: 1,
        max_files: 0,
    };
    assert_eq!(log, expected);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "FlowLogPolicy all: spec.sink.file.path: \"policy.log\" is not an absolute path (InvalidValue)",
            "FlowLogPolicy all: spec.sampling.allowEvery: 70000 is not in 1 to 65535; it is read as 65535 (InvalidValue)",
            "FlowLogPolicy all: spec.aggregation.denySeconds: -1 is not in 0 to 300; it is read as 0 (InvalidValue)",
            "FlowLogPolicy all: spec.sink.file.maxSizeMegabytes: 0 is not in 1 to 10240; it is read as 1 (InvalidValue)",
        ]
    );
}

#[test]
fn codes_are_the_reasons_that_conditions_may_have() {
    let reason = |code: Code| code.to_string();
    assert_eq!(reason(Code::ExceptOutsideCidr), "ExceptOutsideCidr");
    let policy = PolicyRef::network_policy("shop", "db");
    let problem = Problem {
        object: (&policy).into(),
        field: "spec".to_owned(),
        code: Code::Duplicate,
        message: "twice".to_owned(),
    };
    assert_eq!(
        problem.to_string(),
        "NetworkPolicy shop/db: spec: twice (Duplicate)"
    );
}
