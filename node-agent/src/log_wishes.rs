//! What the FlowLogPolicies want to hear of a pod, as bits that the programs test.

use std::collections::BTreeMap;

use weir_abi::workload::workload_flags;
use weir_policy::identity::{IdentityKey, NamedPorts};
use weir_policy::lower::FlowLog;
use weir_policy::resolved::{Direction, Verdict};
use weir_policy::snapshot::{Labels, NAMESPACE_NAME_LABEL, PodId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogWishes {
    /// Bits of [`workload_flags`].
    pub flags: u32,
    /// The smallest that any policy asks for; 0 where none asks for allowed connections.
    pub allow_every: u32,
}

/// The wishes of all policies that select the pod, whose labels these are and its namespace's: all of them, and not
/// only those that network policies look at.
#[must_use]
pub fn log_wishes(
    id: &PodId,
    labels: &Labels,
    namespace_labels: &Labels,
    logs: &BTreeMap<String, FlowLog>,
) -> LogWishes {
    let key = whole_key(id, labels, namespace_labels);
    let mut wishes = LogWishes::default();
    for log in logs.values() {
        if !log.subject.as_ref().is_some_and(|subject| subject.matches(&key)) {
            continue;
        }
        for direction in &log.directions {
            for verdict in &log.verdicts {
                wishes.flags |= flag(*direction, *verdict);
            }
        }
        if log.verdicts.contains(&Verdict::Allow) {
            let every = u32::from(log.allow_every);
            wishes.allow_every = match wishes.allow_every {
                0 => every,
                other => other.min(every),
            };
        }
    }
    wishes
}

fn flag(direction: Direction, verdict: Verdict) -> u32 {
    match (direction, verdict) {
        (Direction::Ingress, Verdict::Allow) => workload_flags::LOG_INGRESS_ALLOW,
        (Direction::Ingress, Verdict::Deny) => workload_flags::LOG_INGRESS_DENY,
        (Direction::Egress, Verdict::Allow) => workload_flags::LOG_EGRESS_ALLOW,
        (Direction::Egress, Verdict::Deny) => workload_flags::LOG_EGRESS_DENY,
    }
}

fn whole_key(id: &PodId, labels: &Labels, namespace_labels: &Labels) -> IdentityKey {
    let mut namespace_labels = namespace_labels.clone();
    namespace_labels.insert(NAMESPACE_NAME_LABEL.to_owned(), id.namespace.clone());
    IdentityKey {
        namespace: id.namespace.clone(),
        pod_labels: labels.clone(),
        namespace_labels,
        named_ports: NamedPorts::new(),
    }
}
