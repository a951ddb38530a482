//! When a status may be written: a roll-out over many nodes makes few writes, its end is told at once, and the coming
//! and going of pods costs no more in a large cluster than in a small one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::conditions::Change;
use crate::statuses::Subject;

/// A change that may wait does for this long, and so do two writes of one status.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a node may take with what is in force on the others, before people hear of it.
const GROWTH: Duration = Duration::from_secs(5);

const RETRY: Duration = Duration::from_secs(5);

/// How many writes a second tell of nothing but other counts, in the whole cluster.
const COUNTS_PER_SECOND: f64 = 1.0;
/// How many of them may come at once after a time without.
const MOST_COUNTS: f64 = 20.0;

/// Times are counted from any fixed point.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    written: BTreeMap<Subject, Duration>,
    waiting: BTreeMap<Subject, Waiting>,
    /// Writes that failed are not tried again before.
    not_before: BTreeMap<Subject, Duration>,
    counts: Allowance,
    /// Those whose counts may be told.
    chosen: BTreeSet<Subject>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Duration,
    change: Change,
}

/// Grows with time, up to a limit.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: MOST_COUNTS,
            at: Duration::ZERO,
        }
    }
}

impl Allowance {
    fn grow(&mut self, now: Duration) {
        let grown = self.left + now.saturating_sub(self.at).as_secs_f64() * COUNTS_PER_SECOND;
        (self.left, self.at) = (grown.min(MOST_COUNTS), now);
    }
}

impl Pace {
    /// Begins a look at all statuses: chooses whose counts may be told, those first that have waited longest.
    pub fn begin(&mut self, now: Duration) {
        self.counts.grow(now);
        let counts = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.change == Change::Counts);
        let mut oldest: Vec<(Duration, &Subject)> = counts
            .map(|(subject, waiting)| (waiting.since, subject))
            .collect();
        oldest.sort();
        let allowed = oldest.into_iter().take(self.counts.left as usize);
        self.chosen = allowed.map(|(_, subject)| subject.clone()).collect();
    }

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
            Change::Passing => self.has_waited(subject, change, INTERVAL, now),
            Change::Growing => self.has_waited(subject, change, GROWTH, now),
            Change::Counts => {
                let is_due = self.has_waited(subject, change, INTERVAL, now) && self.chosen.contains(subject);
                if is_due {
                    self.counts.left -= 1.0;
                }
                is_due
            }
        }
    }

    fn has_waited(&mut self, subject: &Subject, change: Change, long: Duration, now: Duration) -> bool {
        let waiting = Waiting { since: now, change };
        let waiting = self.waiting.entry(subject.clone()).or_insert(waiting);
        // A node that is there after all, or another one that is not yet: each has its own time.
        if (waiting.change == Change::Growing) != (change == Change::Growing) {
            waiting.since = now;
        }
        waiting.change = change;
        let last = self.written.get(subject).copied().unwrap_or_default();
        now.saturating_sub(waiting.since.max(last)) >= long
    }

    pub fn note_write(&mut self, subject: &Subject, now: Duration) {
        self.waiting.remove(subject);
        self.not_before.remove(subject);
        self.written.insert(subject.clone(), now);
    }

    pub fn note_failure(&mut self, subject: &Subject, now: Duration) {
        self.waiting.entry(subject.clone()).or_insert(Waiting {
            since: now,
            change: Change::Passing,
        });
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

    fn subject(name: &str) -> Subject {
        Subject::FlowLogPolicy(name.to_owned())
    }

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn passing_changes_are_folded_and_the_last_is_not() {
        let mut pace = Pace::default();
        let subject = subject("all");
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
        let subject = subject("all");
        assert!(!pace.is_due(&subject, Change::Passing, at(5000)));
        assert!(!pace.is_due(&subject, Change::None, at(5500)));
        assert!(!pace.is_due(&subject, Change::Passing, at(6200)));
        assert!(pace.is_due(&subject, Change::Passing, at(7200)));
    }

    #[test]
    fn a_node_more_is_told_if_it_takes_long() {
        let mut pace = Pace::default();
        let subject = subject("all");
        let mut told = |change, millis| {
            pace.begin(at(millis));
            pace.is_due(&subject, change, at(millis))
        };
        assert!(!told(Change::Growing, 1000));
        assert!(!told(Change::Growing, 5900));
        // The node has it; then there is another one.
        assert!(!told(Change::Counts, 5950));
        assert!(!told(Change::Growing, 6500));
        assert!(!told(Change::Growing, 11_400));
        assert!(told(Change::Growing, 11_500));
        assert!(told(Change::AtOnce, 11_500));
    }

    /// Every policy's counts change all the time: how often each is told, in so many seconds.
    fn told(policies: usize, seconds: u64) -> Vec<usize> {
        let subjects: Vec<Subject> = (0..policies)
            .map(|index| subject(&format!("{index:04}")))
            .collect();
        let mut pace = Pace::default();
        let mut told = vec![0; policies];
        for millis in (0..seconds * 1000).step_by(500) {
            pace.begin(at(millis));
            for (index, subject) in subjects.iter().enumerate() {
                if pace.is_due(subject, Change::Counts, at(millis)) {
                    pace.note_write(subject, at(millis));
                    told[index] += 1;
                }
            }
        }
        told
    }

    #[test]
    fn counts_cost_no_more_in_a_large_cluster() {
        let all = told(1000, 300);
        let sum: usize = all.iter().sum();
        assert!((300..=320).contains(&sum), "{sum}");
        assert!(
            all.iter().all(|&count| count <= 1),
            "one is told twice before another once: {all:?}"
        );
        let few = told(2, 300);
        assert!(few.iter().all(|&count| count >= 140), "{few:?}");
    }
}
