//! Which agents are alive, by their Leases.
//!
//! A Lease that the operator saw being renewed counts from then on by the operator's own clock, so that the clocks of
//! nodes need not agree with it. Only where a Lease is seen for the first time the time that stands in it counts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The prefix of the name of an agent's Lease. What follows is the node's name.
pub const LEASE_PREFIX: &str = "weir-agent-";

/// Taken where a Lease does not say how long it is good.
const DEFAULT_SECONDS: i32 = 40;

#[derive(Debug, Clone, Default)]
pub struct Agents {
    leases: BTreeMap<String, Observed>,
}

#[derive(Debug, Clone)]
struct Observed {
    renewed: Option<Timestamp>,
    /// By the operator's clock.
    alive_until: Timestamp,
}

impl Agents {
    /// Takes in the Lease of a node's agent, as it is at `now`.
    pub fn observe(&mut self, node: &str, lease: &LeaseSpec, now: Timestamp) {
        let renewed = lease.renew_time.as_ref().map(|time| time.0);
        let seconds = lease.lease_duration_seconds.unwrap_or(DEFAULT_SECONDS);
        let duration = SignedDuration::from_secs(i64::from(seconds.max(1)));
        let known = self.leases.get(node);
        if known.is_some_and(|known| known.renewed == renewed) {
            return;
        }
        let from = match known {
            Some(_) => now,
            None => renewed.map_or(now, |renewed| renewed.min(now)),
        };
        let observed = Observed {
            renewed,
            alive_until: from.checked_add(duration).unwrap_or(Timestamp::MAX),
        };
        self.leases.insert(node.to_owned(), observed);
    }

    pub fn forget(&mut self, node: &str) {
        self.leases.remove(node);
    }

    /// The nodes whose agents have a Lease.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.leases.keys().map(String::as_str)
    }

    /// The nodes whose agents have not renewed their Leases in time.
    #[must_use]
    pub fn cut_off(&self, now: Timestamp) -> BTreeSet<String> {
        let expired = self
            .leases
            .iter()
            .filter(|(_, observed)| observed.alive_until < now);
        expired.map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn lease(renewed: i64) -> LeaseSpec {
        LeaseSpec {
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(at(renewed))),
            ..LeaseSpec::default()
        }
    }

    fn cut_off(agents: &Agents, second: i64) -> Vec<String> {
        agents.cut_off(at(second)).into_iter().collect()
    }

    #[test]
    fn an_agent_is_cut_off_when_its_lease_has_expired() {
        let mut agents = Agents::default();
        agents.observe("n1", &lease(1000), at(1001));
        assert_eq!(cut_off(&agents, 1040), Vec::<String>::new());
        assert_eq!(cut_off(&agents, 1041), ["n1"]);
        agents.observe("n1", &lease(1050), at(1051));
        assert_eq!(cut_off(&agents, 1091), Vec::<String>::new());
    }

    #[test]
    fn a_lease_that_expired_before_it_was_seen_is_expired() {
        let mut agents = Agents::default();
        agents.observe("n1", &lease(1000), at(2000));
        assert_eq!(cut_off(&agents, 2000), ["n1"]);
    }

    #[test]
    fn clocks_need_not_agree() {
        let mut agents = Agents::default();
        agents.observe("n1", &lease(5), at(2000));
        agents.observe("n1", &lease(15), at(2010));
        assert_eq!(cut_off(&agents, 2049), Vec::<String>::new());
        agents.observe("n1", &lease(15), at(2049));
        assert_eq!(
            cut_off(&agents, 2051),
            ["n1"],
            "a Lease that is seen again is not renewed"
        );
    }
}
