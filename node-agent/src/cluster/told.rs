//! What is wrong, and how many objects there are, for the log and the metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use weir_api::node_dataplane::RefusedSetting;
use weir_policy::snapshot::PodId;

use super::closed_pods::ClosedSince;
use super::derived::{Current, Derived};
use crate::node_plan::Closed;
use crate::problems::Problems;
use crate::watch::Known;

/// All problems, with those in `problems`.
pub(super) fn problems(
    derived: &Derived,
    current: &Current,
    refused: &[RefusedSetting],
    closed: (&BTreeMap<PodId, Closed>, &ClosedSince),
    mut problems: Problems,
) -> Problems {
    for problem in &derived.book.problems {
        problems.add(problem.kind, "Malformed", problem.to_string(), true);
    }
    for problem in &derived.service_problems {
        let kind = problem.kind.to_string();
        let text = format!(
            "{kind} {}: {}: {}",
            problem.object, problem.field, problem.message
        );
        problems.add(&kind, problem.code.to_string(), text, true);
    }
    for problem in &current.spec.not_understood {
        let text = format!("{}: {}", problem.what, problem.error);
        problems.add("NodeDataplane", "NotUnderstood", text, true);
    }
    for refused in refused {
        let text = format!("{}: {}", refused.field, refused.message);
        problems.add("NodeDataplane", "SettingRefused", text, true);
    }
    let (closed, since) = closed;
    let now = Instant::now();
    for (pod, why) in closed {
        let weight = since.weight(pod, why, now);
        problems.add_weighed("Pod", "Closed", format!("Pod {pod} is closed: {why}"), weight);
    }
    problems
}

pub(super) fn counts(known: &Known, current: &Current) -> BTreeMap<&'static str, u64> {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    BTreeMap::from([
        ("AddressSlice", count(known.address_slices.objects.len())),
        ("EndpointSlice", count(known.endpoint_slices.objects.len())),
        ("FlowLogPolicy", count(current.spec.flow_logs.len())),
        ("IdentitySlice", count(known.identity_slices.objects.len())),
        ("Pod", count(known.pods.objects.len())),
        ("Policy", count(current.spec.policies.len())),
        ("Service", count(known.services.objects.len())),
    ])
}
