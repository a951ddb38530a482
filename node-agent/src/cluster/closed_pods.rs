//! Since when pods are closed. Every pod is for a moment when it starts, and nobody is to be woken for that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_policy::snapshot::PodId;

use crate::node_plan::Closed;
use crate::problems::Weight;

/// How long a pod may wait for its policy before it is worth a warning.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct ClosedSince(BTreeMap<PodId, Instant>);

impl ClosedSince {
    /// Takes over which pods are closed now.
    pub(super) fn follow(&mut self, closed: &BTreeMap<PodId, Closed>, now: Instant) {
        self.0.retain(|pod, _| closed.contains_key(pod));
        for pod in closed.keys() {
            self.0.entry(pod.clone()).or_insert(now);
        }
    }

    /// How the log is to tell that a pod is closed.
    pub(super) fn weight(&self, pod: &PodId, why: &Closed, now: Instant) -> Weight {
        match why {
            Closed::Over => Weight::Passing,
            Closed::Policy(_) => Weight::Warning,
            Closed::Unknown | Closed::NoIdentity | Closed::NotCovered(_) => {
                let is_new = self.0.get(pod).is_none_or(|since| now < *since + PATIENCE);
                if is_new { Weight::Passing } else { Weight::Warning }
            }
        }
    }

    /// How long until the next pod has been closed for too long, if one may be.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let ends = self.0.values().map(|since| *since + PATIENCE);
        ends.filter(|end| *end > now)
            .min()
            .map(|end| end.duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_stays_closed_becomes_a_warning() {
        let (a, b) = (PodId::new("shop", "a"), PodId::new("shop", "b"));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut since = ClosedSince::default();
        since.follow(&BTreeMap::from([(a.clone(), Closed::Unknown)]), at(0));
        let both = BTreeMap::from([(a.clone(), Closed::NoIdentity), (b.clone(), Closed::Unknown)]);
        since.follow(&both, at(2));
        assert_eq!(since.next(at(2)), Some(Duration::from_secs(3)));
        assert_eq!(since.weight(&a, &Closed::NoIdentity, at(4)), Weight::Passing);
        assert_eq!(since.weight(&a, &Closed::NoIdentity, at(5)), Weight::Warning);
        assert_eq!(since.weight(&b, &Closed::NoIdentity, at(5)), Weight::Passing);
        assert_eq!(since.next(at(5)), Some(Duration::from_secs(2)));
        assert_eq!(since.next(at(7)), None);
        assert_eq!(since.weight(&a, &Closed::Over, at(9)), Weight::Passing);
        let policy = Closed::Policy("NetworkPolicy shop/x".to_owned());
        assert_eq!(since.weight(&b, &policy, at(2)), Weight::Warning);
        // Who was open in between begins anew.
        since.follow(&BTreeMap::new(), at(9));
        since.follow(&BTreeMap::from([(a.clone(), Closed::Unknown)]), at(9));
        assert_eq!(since.weight(&a, &Closed::Unknown, at(10)), Weight::Passing);
    }
}
