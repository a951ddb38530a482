//! Rule numbers.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{NumberKey, NumberValue, number_space};
use weir_policy::model::PolicyRef;
use weir_policy::resolved::{Action, Cause, Direction};

use super::TooManyRules;
use crate::numbers::{Digest, assign, digest};

pub(super) struct Rules {
    /// By index into the causes.
    pub(super) by_cause: Vec<u32>,
    pub(super) numbers: BTreeMap<Digest, u32>,
    pub(super) causes: BTreeMap<u32, Cause>,
    pub(super) new: BTreeSet<u32>,
}

pub(super) fn number(
    causes: &[Cause],
    existing: &BTreeMap<NumberKey, NumberValue>,
    capacity: u32,
) -> Result<Rules, TooManyRules> {
    let digests: Vec<Digest> = causes.iter().map(cause_digest).collect();
    let wanted: BTreeSet<Digest> = digests.iter().copied().collect();
    let numbers =
        assign(existing, number_space::RULE, &wanted, capacity.saturating_sub(1)).ok_or(TooManyRules {
            needed: wanted.len() + 1,
            capacity,
        })?;
    let by_cause: Vec<u32> = digests.iter().map(|digest| numbers[digest]).collect();
    let new = numbers
        .iter()
        .filter(|(digest, number)| {
            let key = NumberKey {
                space: number_space::RULE,
                number: **number,
            };
            existing.get(&key).is_none_or(|value| value.digest != **digest)
        })
        .map(|(_, number)| *number)
        .collect();
    let causes = by_cause.iter().copied().zip(causes.iter().cloned()).collect();
    Ok(Rules {
        by_cause,
        numbers,
        causes,
        new,
    })
}

fn cause_digest(cause: &Cause) -> Digest {
    let mut parts = Vec::new();
    match cause {
        Cause::Rule {
            policy,
            direction,
            index,
            name,
            action,
            tier: _,
        } => {
            parts.push("rule".to_owned());
            push_policy(&mut parts, policy);
            parts.push(word(*direction).to_owned());
            parts.push(index.to_string());
            parts.push(name.clone().unwrap_or_default());
            parts.push(
                match action {
                    Action::Accept => "accept",
                    Action::Deny => "deny",
                    Action::Pass => "pass",
                }
                .to_owned(),
            );
        }
        Cause::Isolated { policies, direction } => {
            parts.push("isolated".to_owned());
            parts.push(word(*direction).to_owned());
            policies.iter().for_each(|policy| push_policy(&mut parts, policy));
        }
    }
    digest(parts.iter().map(String::as_str))
}

fn push_policy(parts: &mut Vec<String>, policy: &PolicyRef) {
    parts.push(policy.kind.to_string());
    parts.push(policy.namespace.clone().unwrap_or_default());
    parts.push(policy.name.clone());
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
