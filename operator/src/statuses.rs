//! What became of each object that people wrote: `Accepted`, `Programmed`, `Degraded`.

mod dataplane_config;
mod flow_log_policy;
mod policy;
mod standing;

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use weir_policy::problem::{ObjectRef, Problem, Severity};
use weir_policy::snapshot::ObjectName;

use crate::cluster::{Cluster, HeldStatus, Written};
use crate::existing::Existing;
use crate::plan::Wanted;

pub use standing::{Standing, standing};

/// Whose status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// In the PolicyStatus of the same name.
    NetworkPolicy(ObjectName),
    ClusterNetworkPolicy(String),
    DataplaneConfig(String),
    FlowLogPolicy(String),
}

/// A status as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub subject: Subject,
    pub uid: String,
    pub generation: i64,
    pub outcomes: Vec<Outcome>,
    /// `status.nodes`, for kinds that have it.
    pub nodes: Option<String>,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub condition: &'static str,
    pub holds: bool,
    pub reason: String,
    pub message: String,
}

/// Everything that statuses follow from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub cluster: &'a Cluster,
    pub existing: &'a Existing,
    pub wanted: &'a Wanted,
    /// Nodes whose agents' Leases have expired.
    pub cut_off: &'a BTreeSet<String>,
}

/// The status of every object, in the order of the subjects.
#[must_use]
pub fn statuses(facts: Facts<'_>) -> Vec<Status> {
    let mut statuses = policy::network_policies(facts);
    statuses.extend(policy::cluster_network_policies(facts));
    statuses.extend(dataplane_config::statuses(facts));
    statuses.extend(flow_log_policy::statuses(facts));
    statuses
}

/// What stands in the API.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldConditions<'a> {
    pub conditions: &'a [Condition],
    pub nodes: Option<&'a str>,
    /// Everything but the conditions and the nodes is as it should be.
    pub is_sound: bool,
}

impl Status {
    /// What the API has of this status.
    #[must_use]
    pub fn held<'a>(&self, cluster: &'a Cluster) -> HeldConditions<'a> {
        let of = |written: Option<&'a Written>| HeldConditions {
            conditions: written.map_or(&[][..], |written| &written.conditions),
            nodes: written.and_then(|written| written.nodes.as_deref()),
            is_sound: true,
        };
        match &self.subject {
            Subject::NetworkPolicy(name) => self.held_policy_status(cluster.policy_statuses.get(name)),
            Subject::ClusterNetworkPolicy(name) => of(cluster.cluster_network_policies.get(name)),
            Subject::DataplaneConfig(name) => {
                of(cluster.dataplane_configs.get(name).map(|config| &config.written))
            }
            Subject::FlowLogPolicy(name) => of(cluster.flow_log_policies.get(name)),
        }
    }

    fn held_policy_status<'a>(&self, held: Option<&'a HeldStatus>) -> HeldConditions<'a> {
        let is_sound =
            held.is_some_and(|held| held.policy_uid == self.uid && held.owners == [self.uid.as_str()]);
        HeldConditions {
            conditions: held.map_or(&[][..], |held| &held.conditions),
            nodes: held.and_then(|held| held.nodes.as_deref()),
            is_sound,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy(name) => write!(f, "NetworkPolicy {name}"),
            Self::ClusterNetworkPolicy(name) => write!(f, "ClusterNetworkPolicy {name}"),
            Self::DataplaneConfig(name) => write!(f, "DataplaneConfig {name}"),
            Self::FlowLogPolicy(name) => write!(f, "FlowLogPolicy {name}"),
        }
    }
}

/// How many problems, or nodes, a message names.
const MOST_NAMED: usize = 10;

/// `Accepted`, from what is wrong with an object.
fn accepted(object: &ObjectRef, written: &Written, problems: &[Problem]) -> Outcome {
    let first = problems.partition_point(|problem| problem.object < *object);
    let own: Vec<&Problem> = problems[first..]
        .iter()
        .take_while(|problem| problem.object == *object)
        .collect();
    let worst = own
        .iter()
        .copied()
        .filter(|problem| problem.severity() == Severity::Error)
        .map(|problem| problem.code.to_string())
        .next();
    let worst = match written.undecodable.is_empty() {
        true => worst,
        false => Some("Undecodable".to_owned()),
    };
    let undecodable = written.undecodable.iter();
    let undecodable = undecodable.map(|part| format!("{}: {}", part.field, part.message));
    let problems = own
        .iter()
        .map(|problem| format!("{}: {}", problem.field, problem.message));
    let texts: Vec<String> = undecodable.chain(problems).collect();
    let message = match texts.is_empty() {
        true => "the policy is understood".to_owned(),
        false => listed(&texts, "; "),
    };
    Outcome {
        condition: "Accepted",
        holds: worst.is_none(),
        reason: worst.unwrap_or_else(|| "Accepted".to_owned()),
        message,
    }
}

/// The first of them, and how many more there are.
fn listed(texts: &[String], separator: &str) -> String {
    let named = texts.len().min(MOST_NAMED);
    let mut text = texts[..named].join(separator);
    if texts.len() > named {
        text.push_str(&format!(" and {} more", texts.len() - named));
    }
    text
}
