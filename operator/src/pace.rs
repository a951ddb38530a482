//! When a status may be written: a roll-out over many nodes makes few writes, and its end is told at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::conditions::Change;
use crate::statuses::Subject;

/// A change that may wait does for this long, and so do two writes of one status.
const INTERVAL: Duration = Duration::from_secs(1);

const RETRY: Duration = Duration::from_secs(5);

/// Times are counted from any fixed point.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    written: BTreeMap<Subject, Duration>,
    waiting: BTreeMap<Subject, Duration>,
    /// Writes that failed are not tried again before.
    not_before: BTreeMap<Subject, Duration>,
}

impl Pace {
    /// Whether the change is to be written at `now`.
    pub fn is_due(&mut self, subject: &Subject, change: Change, now: Duration) -> bool {
        if self.not_before.get(subject).is_some_and(|&time| now < time) {
            return false;
        }
        match change {
            Change::None => {
                self.waiting.remove(subject);
                false
            }
            Change::AtOnce => true,
            Change::Passing => {
                let since = *self.waiting.entry(subject.clone()).or_insert(now);
                let last = self.written.get(subject).copied().unwrap_or_default();
                now.saturating_sub(since.max(last)) >= INTERVAL
            }
        }
    }

    pub fn note_write(&mut self, subject: &Subject, now: Duration) {
        self.waiting.remove(subject);
        self.not_before.remove(subject);
        self.written.insert(subject.clone(), now);
    }

    pub fn note_failure(&mut self, subject: &Subject, now: Duration) {
        self.waiting.entry(subject.clone()).or_insert(now);
        self.not_before.insert(subject.clone(), now + RETRY);
    }

    /// Whether a change is waiting for its time.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets what is not among `subjects`, which are sorted.
    pub fn keep(&mut self, subjects: &[&Subject]) {
        let is_kept = |subject: &Subject| subjects.binary_search(&subject).is_ok();
        self.written.retain(|subject, _| is_kept(subject));
        self.waiting.retain(|subject, _| is_kept(subject));
        self.not_before.retain(|subject, _| is_kept(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_changes_are_folded_and_the_last_is_not() {
        let mut pace = Pace::default();
        let subject = Subject::FlowLogPolicy("all".to_owned());
        let at = Duration::from_millis;
        let mut writes = Vec::new();
        for millis in (5000..8000).step_by(100) {
            if pace.is_due(&subject, Change::Passing, at(millis)) {
                pace.note_write(&subject, at(millis));
                writes.push(millis);
            }
        }
        assert_eq!(writes, [6000, 7100]);
        assert!(pace.is_due(&subject, Change::AtOnce, at(7150)));
    }

    #[test]
    fn what_passes_before_its_time_is_never_written() {
        let mut pace = Pace::default();
        let subject = Subject::FlowLogPolicy("all".to_owned());
        let at = Duration::from_millis;
        assert!(!pace.is_due(&subject, Change::Passing, at(5000)));
        assert!(!pace.is_due(&subject, Change::None, at(5500)));
        assert!(!pace.is_due(&subject, Change::Passing, at(6200)));
        assert!(pace.is_due(&subject, Change::Passing, at(7200)));
    }
}
