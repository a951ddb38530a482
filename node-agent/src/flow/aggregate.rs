//! Repeated denials of the same connection → one record with a count.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::flow::record::{Disposition, PolicyRecord};

/// Denials that are being folded. Two denials are the same when nothing but source port and time differ, so the rule
/// and the names that they were given are part of the key.
#[derive(Debug, Clone)]
pub struct Aggregator {
    settings: AggregateSettings,
    entries: BTreeMap<PolicyRecord, Folded>,
    /// Oldest first: `(time of the first packet, serial)` to the key.
    by_age: BTreeMap<(u64, u64), PolicyRecord>,
    serial: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregateSettings {
    /// How long a record may wait for others like it. Zero folds nothing.
    pub window: Duration,
    /// How many different denials may wait. One more sends the oldest off early.
    pub capacity: usize,
}

impl Default for AggregateSettings {
    /// What GKE uses.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(5),
            capacity: 3000,
        }
    }
}

#[derive(Debug, Clone)]
struct Folded {
    count: u64,
    timestamp: String,
}

impl Aggregator {
    pub fn new(settings: AggregateSettings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            by_age: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Takes a record in; returns what is to be written at once: an allowed connection itself, or the oldest denial
    /// where there is no room for another. `now` is in nanoseconds of any clock that does not go back.
    pub fn push(&mut self, now: u64, record: PolicyRecord) -> Option<PolicyRecord> {
        if record.disposition == Disposition::Allow
            || self.settings.window.is_zero()
            || self.settings.capacity == 0
        {
            return Some(record);
        }
        let count = record.count;
        let (key, timestamp) = key(record);
        if let Some(folded) = self.entries.get_mut(&key) {
            folded.count = folded.count.saturating_add(count);
            return None;
        }
        let evicted = if self.entries.len() >= self.settings.capacity {
            self.pop_oldest()
        } else {
            None
        };
        self.by_age.insert((now, self.serial), key.clone());
        self.serial += 1;
        self.entries.insert(key, Folded { count, timestamp });
        evicted
    }

    /// Takes out what has waited for the whole window, oldest first.
    pub fn expired(&mut self, now: u64) -> Vec<PolicyRecord> {
        let mut out = Vec::new();
        while self.next_expiry().is_some_and(|expiry| expiry <= now) {
            out.extend(self.pop_oldest());
        }
        out
    }

    /// When [`expired`](Self::expired) next has something, on the same clock.
    pub fn next_expiry(&self) -> Option<u64> {
        let (&(first, _), _) = self.by_age.first_key_value()?;
        Some(first.saturating_add(u64::try_from(self.settings.window.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Takes out everything, oldest first.
    pub fn drain(&mut self) -> Vec<PolicyRecord> {
        std::iter::from_fn(|| self.pop_oldest()).collect()
    }

    fn pop_oldest(&mut self) -> Option<PolicyRecord> {
        let (_, key) = self.by_age.pop_first()?;
        let (mut record, folded) = self.entries.remove_entry(&key)?;
        record.count = folded.count;
        record.timestamp = folded.timestamp;
        Some(record)
    }
}

/// Splits a record into what makes it the same as another, and its time.
fn key(mut record: PolicyRecord) -> (PolicyRecord, String) {
    record.connection.src_port = 0;
    record.count = 0;
    let timestamp = std::mem::take(&mut record.timestamp);
    (record, timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::decode::tests::event;
    use crate::flow::enrich::tests::enrich;
    use crate::flow::names::tests::names;

    const SECOND: u64 = 1_000_000_000;

    fn aggregator(capacity: usize) -> Aggregator {
        Aggregator::new(AggregateSettings {
            capacity,
            ..AggregateSettings::default()
        })
    }

    fn denied(src_port: u16, dest_port: u16, time: &str) -> PolicyRecord {
        let mut record = enrich(&event(), &names()).0.remove(1);
        record.connection.src_port = src_port;
        record.connection.dest_port = dest_port;
        record.timestamp = time.to_owned();
        record
    }

    fn folded(dest_port: u16, time: &str, count: u64) -> PolicyRecord {
        PolicyRecord {
            count,
            ..denied(0, dest_port, time)
        }
    }

    #[test]
    fn denials_that_differ_in_source_port_only_become_one() {
        let mut aggregator = aggregator(10);
        assert_eq!(aggregator.push(0, denied(1, 80, "a")), None);
        assert_eq!(aggregator.push(SECOND, denied(2, 80, "b")), None);
        assert_eq!(aggregator.push(2 * SECOND, denied(3, 81, "c")), None);
        assert_eq!(aggregator.next_expiry(), Some(5 * SECOND));
        assert_eq!(aggregator.expired(5 * SECOND - 1), []);
        assert_eq!(aggregator.expired(5 * SECOND), [folded(80, "a", 2)]);
        assert_eq!(aggregator.push(6 * SECOND, denied(4, 80, "d")), None);
        assert_eq!(aggregator.drain(), [folded(81, "c", 1), folded(80, "d", 1)]);
        assert_eq!(aggregator.next_expiry(), None);
    }

    #[test]
    fn the_oldest_makes_room_and_is_not_lost() {
        let mut aggregator = aggregator(2);
        assert_eq!(aggregator.push(0, denied(1, 80, "a")), None);
        assert_eq!(aggregator.push(0, denied(1, 81, "b")), None);
        assert_eq!(aggregator.push(0, denied(2, 80, "c")), None);
        assert_eq!(aggregator.push(1, denied(1, 82, "d")), Some(folded(80, "a", 2)));
        assert_eq!(aggregator.drain(), [folded(81, "b", 1), folded(82, "d", 1)]);
    }

    #[test]
    fn different_rules_stay_apart() {
        let mut aggregator = aggregator(10);
        let other_rule = PolicyRecord {
            rule: Some("egress[1]".to_owned()),
            ..denied(1, 80, "b")
        };
        aggregator.push(0, denied(1, 80, "a"));
        aggregator.push(0, other_rule.clone());
        let mut other_rule = other_rule;
        other_rule.connection.src_port = 0;
        assert_eq!(aggregator.drain(), [folded(80, "a", 1), other_rule]);
    }

    #[test]
    fn allowed_connections_pass_and_so_does_everything_without_a_window() {
        let allowed = PolicyRecord {
            disposition: Disposition::Allow,
            ..denied(1, 80, "a")
        };
        assert_eq!(aggregator(10).push(0, allowed.clone()), Some(allowed));
        let mut off = Aggregator::new(AggregateSettings {
            window: Duration::ZERO,
            capacity: 10,
        });
        assert_eq!(off.push(0, denied(1, 80, "a")), Some(denied(1, 80, "a")));
    }
}
