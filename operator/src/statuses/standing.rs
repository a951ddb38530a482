//! How far the nodes are with something that they are to hold.

use super::{Facts, Outcome, listed};
use crate::existing::Contents;
use crate::plan::MOST_SPEC_BYTES;

/// The nodes concerned, by how far they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many nodes it concerns.
    pub concerned: usize,
    /// How many have it in their kernels, and are heard of.
    pub done: usize,
    /// Names of nodes that do not have it, or may not: with what is known of the cause.
    pub waiting: Vec<String>,
    pub cut_off: usize,
    pub too_large: usize,
}

/// Asks each node whether `has` holds for what is in its kernel.
pub fn standing<'a>(
    facts: Facts<'_>,
    nodes: impl IntoIterator<Item = &'a String>,
    has: impl Fn(&str, &Contents) -> bool,
) -> Standing {
    let mut standing = Standing::default();
    for node in nodes {
        standing.concerned += 1;
        let known = facts.existing.nodes.get(node);
        let has = known
            .and_then(|known| known.in_kernel())
            .is_some_and(|held| has(node, &held.contents));
        let reported = known.is_some_and(|known| known.report.present);
        let wanted = facts.wanted.nodes.get(node);
        let too_large = wanted.filter(|wanted| wanted.is_too_large() && !has);
        if facts.cut_off.contains(node) {
            standing.cut_off += 1;
            standing.waiting.push(format!("{node} (cut off)"));
        } else if !facts.cluster.agents.contains(node) {
            let cause = if reported { "agent gone" } else { "no agent" };
            standing.waiting.push(format!("{node} ({cause})"));
        } else if let Some(wanted) = too_large {
            standing.too_large += 1;
            let (size, most) = (wanted.bytes / 1024, MOST_SPEC_BYTES / 1024);
            standing.waiting.push(format!(
                "{node} (its policies take {size} KiB, of at most {most})"
            ));
        } else if has {
            standing.done += 1;
        } else {
            standing.waiting.push(node.clone());
        }
    }
    standing
}

impl Standing {
    /// Like `11/12`.
    #[must_use]
    pub fn count(&self) -> String {
        format!("{}/{}", self.done, self.concerned)
    }

    /// `Programmed`. `nothing` is the reason and the message where no node is concerned.
    #[must_use]
    pub fn programmed(&self, nothing: (&str, &str)) -> Outcome {
        let (reason, message) = if self.concerned == 0 {
            (nothing.0, nothing.1.to_owned())
        } else if self.waiting.is_empty() {
            ("Programmed", format!("{} nodes", self.count()))
        } else {
            let waiting = listed(&self.waiting, ", ");
            (
                self.cause(),
                format!("{} nodes; waiting for: {waiting}", self.count()),
            )
        };
        Outcome {
            condition: "Programmed",
            holds: self.waiting.is_empty(),
            reason: reason.to_owned(),
            message,
        }
    }

    fn cause(&self) -> &'static str {
        if self.too_large > 0 {
            "TooLarge"
        } else if self.cut_off > 0 {
            "AgentCutOff"
        } else {
            "Pending"
        }
    }
}
