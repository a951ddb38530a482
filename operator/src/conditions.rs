//! From outcomes to `metav1.Condition`s, written only on change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::statuses::{HeldConditions, Outcome, Status};

/// What a change of a status is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    None,
    /// As many nodes as there are have it, but they are more or fewer than before.
    Counts,
    /// A node more is concerned and does not have it yet. Its pods that it is about are closed until then.
    Growing,
    /// It may wait and be folded with the next ones.
    Passing,
    /// The spec is another one, or something has become true.
    AtOnce,
}

/// Compares a status with what the API has.
#[must_use]
pub fn change(status: &Status, held: HeldConditions<'_>) -> Change {
    let pairs = status
        .outcomes
        .iter()
        .map(|outcome| (outcome, find(held.conditions, outcome)));
    let mut change = Change::None;
    if held.nodes != status.nodes.as_deref() {
        change = Change::Counts;
    }
    // What is good so far may be told together with what comes next: a small policy is in force by then.
    if held.conditions.is_empty() && status.outcomes.iter().all(|outcome| !is_bad_news(outcome)) {
        let in_force = |outcome: &Outcome| outcome.condition == "Programmed" && outcome.holds;
        return match status.outcomes.iter().any(in_force) {
            true => Change::AtOnce,
            false => Change::Passing,
        };
    }
    if !held.is_sound {
        return Change::AtOnce;
    }
    for (outcome, known) in pairs {
        let Some(known) = known else {
            return Change::AtOnce;
        };
        let same_status = known.status == text(outcome.holds);
        if known.observed_generation != Some(status.generation) || (!same_status && is_news(outcome)) {
            return Change::AtOnce;
        }
        change = change.max(weigh(outcome, known));
    }
    change
}

/// Whether somebody may be waiting for this status of the condition.
fn is_news(outcome: &Outcome) -> bool {
    outcome.holds || outcome.condition == "Accepted"
}

/// What another status, reason or message of the condition is worth, where it is no news.
fn weigh(outcome: &Outcome, known: &Condition) -> Change {
    let is_programmed = outcome.condition == "Programmed";
    let same_status = known.status == text(outcome.holds);
    if same_status && known.reason == outcome.reason && known.message == outcome.message {
        Change::None
    } else if is_programmed && same_status && outcome.holds {
        Change::Counts
    } else if is_programmed && !same_status && outcome.reason == "Pending" {
        Change::Growing
    } else {
        Change::Passing
    }
}

/// Whether people should hear of it even before anything else is known.
fn is_bad_news(outcome: &Outcome) -> bool {
    outcome.condition == "Accepted" && !outcome.holds
}

/// The conditions to write. A condition whose status stays keeps the time of its last transition.
#[must_use]
pub fn conditions(status: &Status, held: &[Condition], now: Timestamp) -> Vec<Condition> {
    let conditions = status.outcomes.iter().map(|outcome| {
        let holds = text(outcome.holds);
        let known = find(held, outcome).filter(|known| known.status == holds);
        Condition {
            type_: outcome.condition.to_owned(),
            status: holds.to_owned(),
            reason: outcome.reason.clone(),
            message: outcome.message.clone(),
            observed_generation: Some(status.generation),
            last_transition_time: known.map_or(Time(now), |known| known.last_transition_time.clone()),
        }
    });
    conditions.collect()
}

fn find<'a>(held: &'a [Condition], outcome: &Outcome) -> Option<&'a Condition> {
    held.iter().find(|known| known.type_ == outcome.condition)
}

fn text(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statuses::Subject;

    fn outcome(condition: &'static str, holds: bool, message: &str) -> Outcome {
        Outcome {
            condition,
            holds,
            reason: if holds { "Programmed" } else { "Pending" }.to_owned(),
            message: message.to_owned(),
        }
    }

    fn status(generation: i64, outcomes: Vec<Outcome>) -> Status {
        Status {
            subject: Subject::ClusterNetworkPolicy("deny".to_owned()),
            uid: "u".to_owned(),
            generation,
            outcomes,
            nodes: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn change_from(before: &Status, after: &Status) -> Change {
        let conditions = conditions(before, &[], at(1));
        let held = HeldConditions {
            conditions: &conditions,
            nodes: None,
            is_sound: true,
        };
        change(after, held)
    }

    #[test]
    fn the_time_of_transition_is_kept() {
        let before = conditions(&status(1, vec![outcome("Programmed", false, "1/2")]), &[], at(10));
        let same = conditions(
            &status(2, vec![outcome("Programmed", false, "2/3")]),
            &before,
            at(20),
        );
        assert_eq!(same[0].last_transition_time.0, at(10));
        assert_eq!(same[0].observed_generation, Some(2));
        let other = conditions(
            &status(2, vec![outcome("Programmed", true, "3/3")]),
            &same,
            at(30),
        );
        assert_eq!(other[0].last_transition_time.0, at(30));
    }

    #[test]
    fn changes_are_weighed() {
        let pending = status(1, vec![outcome("Programmed", false, "1/2")]);
        assert_eq!(change_from(&pending, &pending), Change::None);
        let further = status(1, vec![outcome("Programmed", false, "1/3")]);
        assert_eq!(change_from(&pending, &further), Change::Passing);
        let done = status(1, vec![outcome("Programmed", true, "2/2")]);
        assert_eq!(change_from(&pending, &done), Change::AtOnce);
        assert_eq!(change_from(&done, &pending), Change::Growing);
        let mut cut_off = outcome("Programmed", false, "1/2");
        cut_off.reason = "AgentCutOff".to_owned();
        assert_eq!(change_from(&done, &status(1, vec![cut_off])), Change::Passing);
        let newer = status(2, vec![outcome("Programmed", false, "1/2")]);
        assert_eq!(change_from(&pending, &newer), Change::AtOnce);
        let more = status(
            1,
            vec![outcome("Programmed", false, "1/2"), outcome("Accepted", true, "")],
        );
        assert_eq!(change_from(&pending, &more), Change::AtOnce);
        let grown = status(1, vec![outcome("Programmed", true, "3/3")]);
        assert_eq!(change_from(&done, &grown), Change::Counts);
    }

    #[test]
    fn a_first_status_waits_for_good_news_and_not_with_bad() {
        let nothing = HeldConditions {
            conditions: &[],
            nodes: None,
            is_sound: false,
        };
        let of = |accepted: bool, programmed: bool| {
            let outcomes = vec![
                outcome("Accepted", accepted, ""),
                outcome("Programmed", programmed, "0/2"),
            ];
            change(&status(1, outcomes), nothing)
        };
        assert_eq!(of(true, false), Change::Passing);
        assert_eq!(of(true, true), Change::AtOnce);
        assert_eq!(of(false, false), Change::AtOnce);
    }
}
