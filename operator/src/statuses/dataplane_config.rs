//! DataplaneConfig.

use super::flow_log_policy::LOG_REASON_PREFIX;
use super::{Facts, Outcome, Status, Subject, listed, standing};
use crate::existing::ExistingNode;
use crate::settings::ConfigOutcome;

pub(super) fn statuses(facts: Facts<'_>) -> Vec<Status> {
    let configs = facts.cluster.dataplane_configs.iter().map(|(name, config)| {
        let nothing = ConfigOutcome::default();
        let outcome = facts.wanted.settings.configs.get(name).unwrap_or(&nothing);
        let standing = standing(facts, &outcome.nodes, |node, contents| {
            let wanted = facts.wanted.nodes.get(node);
            wanted.is_some_and(|wanted| wanted.contents.settings == contents.settings)
        });
        Status {
            subject: Subject::DataplaneConfig(name.clone()),
            uid: config.written.uid.clone(),
            generation: config.written.generation,
            outcomes: vec![
                accepted(outcome),
                standing.programmed(("SelectsNothing", "no node is selected")),
                degraded(facts, outcome),
            ],
            nodes: Some(standing.count()),
        }
    });
    configs.collect()
}

fn accepted(outcome: &ConfigOutcome) -> Outcome {
    let mut texts: Vec<String> = outcome
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.field, problem.message))
        .collect();
    texts.extend(outcome.conflicts.iter().map(|conflict| {
        let (field, winner) = (&conflict.field, &conflict.winner);
        format!("{field}: DataplaneConfig {winner} has the same precedence, sets another value, and is older or first by name; it wins")
    }));
    let reason = match (outcome.problems.first(), outcome.conflicts.is_empty()) {
        (Some(problem), _) => problem.reason,
        (None, false) => "Conflicted",
        (None, true) => "Accepted",
    };
    Outcome {
        condition: "Accepted",
        holds: texts.is_empty(),
        reason: reason.to_owned(),
        message: match texts.is_empty() {
            true => "the config is valid".to_owned(),
            false => listed(&texts, "; "),
        },
    }
}

fn degraded(facts: Facts<'_>, outcome: &ConfigOutcome) -> Outcome {
    let mut reason = "AsExpected";
    let mut causes = Vec::new();
    for node in &outcome.nodes {
        if facts.cut_off.contains(node) {
            reason = "AgentCutOff";
            causes.push(format!("{node}: its agent has not renewed its Lease"));
        }
    }
    for node in &outcome.nodes {
        let Some(known) = facts.existing.nodes.get(node) else {
            continue;
        };
        let refused = refused(known, outcome, node);
        let conditions = node_conditions(known);
        if !refused.is_empty() {
            reason = "Refused";
        } else if !conditions.is_empty() && causes.is_empty() {
            reason = "NodesDegraded";
        }
        causes.extend(refused);
        causes.extend(conditions.into_iter().map(|message| format!("{node}: {message}")));
    }
    Outcome {
        condition: "Degraded",
        holds: !causes.is_empty(),
        reason: reason.to_owned(),
        message: listed(&causes, "; "),
    }
}

/// The fields that the config sets on the node and that are not in force there.
fn refused(known: &ExistingNode, outcome: &ConfigOutcome, node: &str) -> Vec<String> {
    let Some(wins) = outcome.wins.get(node) else {
        return Vec::new();
    };
    let refused = known.report.refused.iter().filter(|refused| {
        let field = refused.field.strip_prefix("spec.").unwrap_or(&refused.field);
        wins.contains(field)
    });
    refused
        .map(|refused| format!("{node}: {}: {}", refused.field, refused.message))
        .collect()
}

fn node_conditions(known: &ExistingNode) -> Vec<&str> {
    let conditions = known.report.conditions.iter().filter(|condition| {
        condition.type_ == "Degraded"
            && condition.status == "True"
            && !condition.reason.starts_with(LOG_REASON_PREFIX)
    });
    conditions.map(|condition| condition.message.as_str()).collect()
}
