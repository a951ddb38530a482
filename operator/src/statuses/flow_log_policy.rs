//! FlowLogPolicy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use weir_policy::problem::ObjectRef;

use super::{Facts, Outcome, Status, Subject, accepted, listed, standing};
use crate::cluster::Written;

/// How the reason of a node's `Degraded` condition begins that tells about its logs.
pub(super) const LOG_REASON_PREFIX: &str = "FlowLog";

pub(super) fn statuses(facts: Facts<'_>) -> Vec<Status> {
    let policies = facts.cluster.flow_log_policies.iter().map(|(name, written)| {
        let (outcomes, nodes) = outcomes(facts, name, written);
        Status {
            subject: Subject::FlowLogPolicy(name.clone()),
            uid: written.uid.clone(),
            generation: written.generation,
            outcomes,
            nodes,
        }
    });
    policies.collect()
}

/// The number of nodes is absent where none is to log by it.
fn outcomes(facts: Facts<'_>, name: &str, written: &Written) -> (Vec<Outcome>, Option<String>) {
    let object = ObjectRef {
        kind: "FlowLogPolicy".to_owned(),
        namespace: None,
        name: name.to_owned(),
    };
    let accepted = accepted(&object, written, &facts.wanted.problems);
    let (programmed, nodes) = match facts.wanted.flow_logs.get(name) {
        Some(log) => {
            let has =
                |_: &str, contents: &crate::existing::Contents| contents.flow_logs.contains(&log.digest);
            let standing = standing(facts, facts.wanted.nodes.keys(), has);
            (
                standing.programmed(("NoNodes", "there is no node")),
                Some(standing.count()),
            )
        }
        None => {
            let outcome = Outcome {
                condition: "Programmed",
                holds: false,
                reason: "NotAccepted".to_owned(),
                message: "nothing is logged by it".to_owned(),
            };
            (outcome, None)
        }
    };
    (vec![accepted, programmed, degraded(facts, name)], nodes)
}

/// Nodes that say so of this policy (`refused` names `flowLogs.<name>`), or of their logs in general.
fn degraded(facts: Facts<'_>, name: &str) -> Outcome {
    let field = format!("flowLogs.{name}");
    let mut causes = Vec::new();
    for (node, known) in &facts.existing.nodes {
        if !facts.wanted.nodes.contains_key(node) {
            continue;
        }
        let refused = known
            .report
            .refused
            .iter()
            .filter(|refused| refused.field == field);
        causes.extend(refused.map(|refused| format!("{node}: {}", refused.message)));
        let conditions = known
            .report
            .conditions
            .iter()
            .filter(|condition| tells_of_logs(condition));
        causes.extend(conditions.map(|condition| format!("{node}: {}", condition.message)));
    }
    match causes.is_empty() {
        true => Outcome {
            condition: "Degraded",
            holds: false,
            reason: "AsExpected".to_owned(),
            message: String::new(),
        },
        false => Outcome {
            condition: "Degraded",
            holds: true,
            reason: "NodesDegraded".to_owned(),
            message: listed(&causes, "; "),
        },
    }
}

fn tells_of_logs(condition: &Condition) -> bool {
    condition.type_ == "Degraded"
        && condition.status == "True"
        && condition.reason.starts_with(LOG_REASON_PREFIX)
}
