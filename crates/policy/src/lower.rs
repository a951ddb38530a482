//! API objects to [`Policy`]s. Never fails, and drops nothing without a [`Problem`].
//!
//! What is not understood fails closed:
//!
//! - in a NetworkPolicy, the peer, port or rule in question allows nothing;
//! - in a ClusterNetworkPolicy, a rule with such a part matches nothing if it is an Accept, and denies everything if it
//!   is a Deny or a Pass (the API's own words for peers, taken for every part of a rule);
//! - where it is the subject, the policy covers every pod that any reading of it could select, and only denies.
//!
//! So the outcome never allows what some reading of the object would deny. The webhook that admits objects, the
//! operator and the agent all use this code: there is no second validator.

mod cidr;
mod cluster_network_policy;
mod flow_log_policy;
mod network_policy;
mod port;
mod selector;

use std::collections::BTreeMap;

use crate::model::{Policy, PolicyRef, Rules, Tier};
use crate::problem::{Code, ObjectRef, Problem};
use crate::resolved::Action;
use crate::snapshot::{Labels, Snapshot};

pub use cluster_network_policy::cluster_network_policy;
pub use flow_log_policy::{FlowLog, flow_log_policy};
pub use network_policy::network_policy;

/// With the value `"true"` on a NetworkPolicy or ClusterNetworkPolicy: show what it would do, and do nothing.
pub const DRY_RUN_ANNOTATION: &str = "dataplane.weir.dev/dry-run";

/// All policies of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lowered {
    pub policies: BTreeMap<PolicyRef, Policy>,
    pub flow_logs: BTreeMap<String, FlowLog>,
    /// Sorted.
    pub problems: Vec<Problem>,
}

/// Lowers every policy of a snapshot.
#[must_use]
pub fn lower(snapshot: &Snapshot) -> Lowered {
    let mut lowered = Lowered::default();
    for (id, object) in &snapshot.network_policies {
        let reference = PolicyRef::network_policy(&id.namespace, &id.name);
        let (policy, problems) = network_policy(reference, &object.annotations, &object.spec);
        lowered.add(policy, problems);
    }
    for (name, object) in &snapshot.cluster_network_policies {
        let reference = PolicyRef::cluster_network_policy(name);
        let (policy, problems) = cluster_network_policy(reference, &object.annotations, &object.spec);
        lowered.add(policy, problems);
    }
    for (name, spec) in &snapshot.flow_log_policies {
        let (log, problems) = flow_log_policy(name, spec);
        lowered.flow_logs.insert(name.clone(), log);
        lowered.problems.extend(problems);
    }
    lowered.problems.extend(priority_ties(&lowered.policies));
    lowered.problems.sort();
    lowered
}

impl Lowered {
    fn add(&mut self, policy: Policy, problems: Vec<Problem>) {
        self.policies.insert(policy.reference.clone(), policy);
        self.problems.extend(problems);
    }
}

/// Whether two policies of the same tier and priority select the same pods is not looked at: the next pod could be
/// selected by both.
fn priority_ties(policies: &BTreeMap<PolicyRef, Policy>) -> Vec<Problem> {
    let mut levels = BTreeMap::<(Tier, u16), Vec<&PolicyRef>>::new();
    for policy in policies
        .values()
        .filter(|policy| policy.tier != Tier::NetworkPolicy)
    {
        levels
            .entry((policy.tier, policy.priority))
            .or_default()
            .push(&policy.reference);
    }
    let ties = levels.into_iter().filter(|(_, references)| references.len() > 1);
    ties.flat_map(|((tier, priority), references)| {
        let first = references[0];
        references.into_iter().map(move |reference| {
            let message = format!(
                "other policies of tier {tier:?} have priority {priority} too; they are asked in the order of their \
                 names, {} first",
                first.name
            );
            problem(reference, Code::PriorityTie, "spec.priority", message)
        })
    })
    .collect()
}

/// Where problems of one object are gathered.
struct Report {
    object: ObjectRef,
    problems: Vec<Problem>,
}

impl Report {
    fn new(object: ObjectRef) -> Self {
        Self {
            object,
            problems: Vec::new(),
        }
    }

    fn add(&mut self, code: Code, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        self.problems.push(Problem {
            object: self.object.clone(),
            field,
            code,
            message,
        });
    }
}

/// A part of an object that was not understood. What is wrong with it has been reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotUnderstood;

/// Reads the dry-run annotation. A value that is neither true nor false leaves the policy in force.
fn dry_run(annotations: &Labels, report: &mut Report) -> bool {
    match annotations.get(DRY_RUN_ANNOTATION).map(String::as_str) {
        Some("true") => true,
        None | Some("false") => false,
        Some(value) => {
            let field = format!("metadata.annotations[{DRY_RUN_ANNOTATION}]");
            let message = format!("{value:?} is neither \"true\" nor \"false\"; the policy is enforced");
            report.add(Code::InvalidAnnotation, field, message);
            false
        }
    }
}

/// Takes from a policy whose subject is not understood everything that could open what another reading keeps closed:
/// to accept, and to skip other rules.
fn close(rules: &mut Rules) {
    rules.rules.retain(|rule| rule.action != Action::Accept);
    for rule in &mut rules.rules {
        rule.action = Action::Deny;
    }
}

fn problem(policy: &PolicyRef, code: Code, field: &str, message: String) -> Problem {
    Problem {
        object: policy.into(),
        field: field.to_owned(),
        code,
        message,
    }
}
