//! What holds for a pod of which no more is known than that it is one.
//!
//! It may turn out to be any pod, so it is allowed only what every pod is. A rule that looks at labels, or at the names
//! of the peer's ports, may match it or not:
//!
//! - an Accept is taken not to match, and a Deny to match;
//! - a Pass of the Admin tier leads to the NetworkPolicies where it matches, and to the tier's later rules where it does
//!   not. If none of those denies, they lead to nothing worse, and it is taken to match; otherwise it denies;
//! - a Pass of the Baseline tier leads to the default, allow, so it is taken not to match.
//!
//! By its address such a pod is known as any other: rules for CIDRs are not looked at here.

use super::ports::{Claim, PortRange};
use super::side::{Line, Numbers};
use crate::model::{Peer, Peers, PodSelector, Protocol, Tier};
use crate::resolved::{Action, Slot};

/// What the lines of a side claim for it beside what holds for any peer.
pub(super) fn claims(lines: &[Line<'_>]) -> Vec<Claim> {
    let mut claims = Vec::new();
    let denied = LastDenial::of(lines);
    for line in lines {
        match Matches::of(line.peers) {
            Matches::Anybody => {}
            Matches::AnyPod => line.claim(&mut claims),
            Matches::SomePods => claim_doubtfully(line, &numbers(&line.ports), &denied, &mut claims),
            Matches::NoPod => continue,
        }
        claim_doubtfully(line, &named(&line.named), &denied, &mut claims);
    }
    claims
}

/// Whom a line is about, of those who are known by identity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matches {
    Anybody,
    AnyPod,
    SomePods,
    NoPod,
}

impl Matches {
    fn of(peers: &Peers) -> Self {
        let Peers::Of(peers) = peers else {
            return Self::Anybody;
        };
        let mut selectors = peers.iter().filter_map(|peer| match peer {
            Peer::Pods(selector) => Some(selector),
            Peer::Network(_) => None,
        });
        let everything = PodSelector::everything();
        match selectors.next() {
            None => Self::NoPod,
            Some(first) if *first == everything || selectors.any(|other| *other == everything) => {
                Self::AnyPod
            }
            Some(_) => Self::SomePods,
        }
    }
}

/// `None` in it: every protocol and port.
fn numbers(ports: &Numbers) -> Vec<Option<PortRange>> {
    match ports {
        Numbers::Any => vec![None],
        Numbers::Of(ranges) => ranges.iter().copied().map(Some).collect(),
    }
}

/// A name may stand for any port.
fn named(names: &[(Option<Protocol>, &str)]) -> Vec<Option<PortRange>> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocols = all.into_iter().filter(|protocol| {
        names
            .iter()
            .any(|(wanted, _)| wanted.is_none_or(|wanted| wanted == *protocol))
    });
    let ranges = protocols.map(|protocol| {
        Some(PortRange {
            protocol,
            first: 0,
            last: u16::MAX,
        })
    });
    ranges.collect()
}

/// The last rank at which the Admin tier denies somebody something.
struct LastDenial {
    enforced: Option<u32>,
    /// If the dry-run policies were in force too.
    dry_run: Option<u32>,
}

impl LastDenial {
    fn of(lines: &[Line<'_>]) -> Self {
        let denials = || {
            lines
                .iter()
                .filter(|line| line.tier == Tier::Admin && line.slot.action == Action::Deny)
        };
        let enforced = denials().filter(|line| !line.dry_run);
        Self {
            enforced: enforced.map(|line| line.slot.rank).max(),
            dry_run: denials().map(|line| line.slot.rank).max(),
        }
    }
}

/// Claims for these ports of a line that may match or not.
fn claim_doubtfully(
    line: &Line<'_>,
    ports: &[Option<PortRange>],
    denied: &LastDenial,
    claims: &mut Vec<Claim>,
) {
    let mut claim = |action, enforced, dry_run| {
        claims.extend(ports.iter().map(|ports| Claim {
            slot: Slot { action, ..line.slot },
            enforced,
            dry_run,
            ports: *ports,
            ..line.claim_of(None)
        }));
    };
    let passed = |denied: Option<u32>| match denied {
        Some(rank) if rank > line.slot.rank => Action::Deny,
        Some(_) | None => Action::Pass,
    };
    match (line.slot.action, line.tier) {
        (Action::Accept, _) | (Action::Pass, Tier::Baseline) => {}
        (Action::Deny, _) => claim(Action::Deny, !line.dry_run, true),
        (Action::Pass, Tier::Admin | Tier::NetworkPolicy) => {
            claim(passed(denied.enforced), !line.dry_run, false);
            claim(passed(denied.dry_run), false, true);
        }
    }
}
