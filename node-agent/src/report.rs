//! What the agent reports of its node: the status of its NodeDataplane.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weir_api::node_dataplane::{AgentInfo, NodeDataplaneStatus, RefusedSetting};
use weir_policy::snapshot::PodId;

use crate::node_plan::Closed;

/// All that the report follows from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// `metadata.generation` of the object as it was last seen.
    pub observed_generation: i64,
    /// The generation that is in the kernel, whole.
    pub programmed_generation: Option<i64>,
    /// Why that is not the one that was observed.
    pub behind: Option<Behind>,
    pub policies: usize,
    /// Pods that are connected.
    pub pods: usize,
    pub closed: BTreeMap<PodId, Closed>,
    pub refused: Vec<RefusedSetting>,
    /// Sentences: what was asked for and is not understood, or cannot be done.
    pub problems: Vec<String>,
    pub agent: AgentInfo,
}

/// Why the kernel does not hold the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// The address book has not reached the revision that the spec relies on.
    AddressBook { needed: i64, reached: Option<i64> },
    /// The spec cannot be read.
    NotUnderstood(String),
    /// The kernel refuses.
    Failed(String),
    /// These pods have no interface.
    NotConnected(Vec<PodId>),
}

/// How many of a list a message names.
const NAMED: usize = 10;
/// The API allows conditions' messages 32,768 bytes.
const LONGEST_MESSAGE: usize = 4096;

/// The status. Times of transition are those of `before` where nothing has turned since.
#[must_use]
pub fn status(facts: &Facts, before: &[Condition], now: Timestamp) -> NodeDataplaneStatus {
    let (programmed, reason, message) = programmed(facts);
    let (degraded, degraded_reason, degraded_message) = degraded(facts);
    let condition = |kind: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let same = before
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: cut(message),
            observed_generation: Some(facts.observed_generation),
            last_transition_time: same.map_or_else(
                || Time(whole_seconds(now)),
                |condition| condition.last_transition_time.clone(),
            ),
        }
    };
    NodeDataplaneStatus {
        programmed_generation: facts.programmed_generation,
        conditions: vec![
            condition("Degraded", degraded, degraded_reason, degraded_message),
            condition("Programmed", programmed, reason, message),
        ],
        agent: Some(facts.agent.clone()),
        policies: i64::try_from(facts.policies).ok(),
        pods: i64::try_from(facts.pods).ok(),
        refused: facts.refused.clone(),
    }
}

fn programmed(facts: &Facts) -> (bool, &'static str, String) {
    let (reason, message) = match &facts.behind {
        None if facts.programmed_generation == Some(facts.observed_generation) => {
            return (true, "Programmed", "the kernel holds the spec".to_owned());
        }
        None => ("Pending", "the spec is being written into the kernel".to_owned()),
        Some(Behind::AddressBook { needed, reached }) => (
            "WaitingForAddressBook",
            match reached {
                Some(reached) => format!(
                    "the spec relies on revision {needed} of the address book, of which {reached} was seen"
                ),
                None => {
                    format!(
                        "the spec relies on revision {needed} of the address book, of which nothing was seen"
                    )
                }
            },
        ),
        Some(Behind::NotUnderstood(error)) => ("NotUnderstood", format!("the spec cannot be read: {error}")),
        Some(Behind::Failed(error)) => ("Failed", error.clone()),
        Some(Behind::NotConnected(pods)) => (
            "PodsNotConnected",
            format!(
                "{} have no interface: {}",
                count(pods.len(), "pod"),
                first(pods.iter().map(ToString::to_string))
            ),
        ),
    };
    (false, reason, message)
}

fn degraded(facts: &Facts) -> (bool, &'static str, String) {
    let closed = facts
        .closed
        .iter()
        .filter(|(_, why)| matches!(why, Closed::Policy(_)));
    let closed: Vec<String> = closed.map(|(pod, why)| format!("{pod}: {why}")).collect();
    let mut sentences = Vec::new();
    if !facts.problems.is_empty() {
        sentences.push(first(facts.problems.iter().cloned()));
    }
    if !closed.is_empty() {
        sentences.push(format!(
            "{} closed: {}",
            count(closed.len(), "pod"),
            first(closed.into_iter())
        ));
    }
    if !facts.refused.is_empty() {
        let refused = facts.refused.iter().map(|refused| refused.field.clone());
        sentences.push(format!(
            "{} refused: {}",
            count(facts.refused.len(), "setting"),
            first(refused)
        ));
    }
    let reason = if !facts.problems.is_empty() {
        "NotUnderstood"
    } else if !facts.refused.is_empty() {
        "SettingsRefused"
    } else {
        return (
            false,
            "AsAsked",
            "everything that was asked for is done".to_owned(),
        );
    };
    (true, reason, sentences.join("; "))
}

fn count(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// The first few, and how many more there are.
fn first(texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(NAMED);
    let named: Vec<String> = texts.take(NAMED).collect();
    match more {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = message.floor_char_boundary(LONGEST_MESSAGE - 3);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// The API keeps no fractions, and an object that comes back is compared with what was sent.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            observed_generation: 5,
            programmed_generation: Some(5),
            policies: 3,
            pods: 2,
            agent: AgentInfo {
                version: "0.1.0".to_owned(),
                kernel: "6.18".to_owned(),
            },
            ..Facts::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str, second: i64) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(5),
            last_transition_time: Time(at(second)),
        }
    }

    #[test]
    fn a_node_that_is_as_it_should_be_says_so() {
        let now = Timestamp::from_millisecond(100_700).expect("a time");
        let expected = NodeDataplaneStatus {
            programmed_generation: Some(5),
            conditions: vec![
                condition(
                    "Degraded",
                    "False",
                    "AsAsked",
                    "everything that was asked for is done",
                    100,
                ),
                condition(
                    "Programmed",
                    "True",
                    "Programmed",
                    "the kernel holds the spec",
                    100,
                ),
            ],
            agent: Some(facts().agent),
            policies: Some(3),
            pods: Some(2),
            refused: Vec::new(),
        };
        assert_eq!(status(&facts(), &[], now), expected);
        // Nothing turns by itself.
        assert_eq!(status(&facts(), &expected.conditions, at(200)), expected);
    }

    #[test]
    fn a_node_that_is_behind_says_why_and_since_when() {
        let before = status(&facts(), &[], at(100)).conditions;
        let message = |behind| {
            let facts = Facts {
                programmed_generation: Some(4),
                behind: Some(behind),
                ..facts()
            };
            let conditions = status(&facts, &before, at(200)).conditions;
            assert_eq!(conditions[0], before[0]);
            let programmed = conditions[1].clone();
            assert_eq!(
                (&*programmed.status, programmed.last_transition_time),
                ("False", Time(at(200)))
            );
            format!("{}: {}", programmed.reason, programmed.message)
        };
        let pods = (0..12)
            .map(|index| PodId::new("a", format!("p{index}")))
            .collect();
        assert_eq!(
            [
                Behind::AddressBook {
                    needed: 9,
                    reached: Some(7)
                },
                Behind::AddressBook {
                    needed: 9,
                    reached: None
                },
                Behind::NotUnderstood("missing field `x`".to_owned()),
                Behind::Failed("map policy: no space".to_owned()),
                Behind::NotConnected(pods),
            ]
            .map(message),
            [
                "WaitingForAddressBook: the spec relies on revision 9 of the address book, of which 7 was seen",
                "WaitingForAddressBook: the spec relies on revision 9 of the address book, of which nothing was seen",
                "NotUnderstood: the spec cannot be read: missing field `x`",
                "Failed: map policy: no space",
                "PodsNotConnected: 12 pods have no interface: a/p0, a/p1, a/p2, a/p3, a/p4, a/p5, a/p6, a/p7, a/p8, \
                 a/p9, and 2 more",
            ]
        );
    }

    #[test]
    fn what_cannot_be_done_degrades_the_node() {
        let facts = Facts {
            refused: vec![RefusedSetting {
                field: "spec.network.mode".to_owned(),
                message: "no".to_owned(),
            }],
            problems: vec!["NetworkPolicy shop/db: this agent does not know the field x".to_owned()],
            closed: BTreeMap::from([
                (PodId::new("a", "waits"), Closed::NoIdentity),
                (
                    PodId::new("shop", "db"),
                    Closed::Policy("NetworkPolicy shop/db".to_owned()),
                ),
            ]),
            ..facts()
        };
        assert_eq!(
            status(&facts, &[], at(100)).conditions[0],
            condition(
                "Degraded",
                "True",
                "NotUnderstood",
                "NetworkPolicy shop/db: this agent does not know the field x; 1 pod closed: shop/db: NetworkPolicy \
                 shop/db may select it and is not understood; 1 setting refused: spec.network.mode",
                100
            )
        );
    }

    #[test]
    fn a_message_is_never_too_long() {
        let facts = Facts {
            problems: vec!["ä".repeat(5000)],
            ..facts()
        };
        let message = status(&facts, &[], at(100)).conditions[0].message.clone();
        assert!(message.len() <= LONGEST_MESSAGE && message.ends_with("..."));
    }
}
