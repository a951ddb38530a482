//! Accounting for the messages of a stream. Times are counted from the stream's beginning.

use std::time::Duration;

use super::report::{Outcome, StreamReport};

#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: u64,
    /// By message: how many echoes of it arrived.
    echoes: Vec<u32>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    highest: Option<u64>,
    last_arrival: Duration,
    longest_gap: Duration,
    /// When sending ended; silence after that is no gap.
    sending_ended: Option<Duration>,
    ended: Option<Outcome>,
    errors: u64,
}

impl Tally {
    pub(super) fn sent_one(&mut self) {
        self.sent += 1;
        self.echoes.push(0);
    }

    /// `None` for an echo that is not of a message.
    pub(super) fn arrived(&mut self, message: Option<u64>, now: Duration) {
        let slot = message.and_then(|message| self.echoes.get_mut(usize::try_from(message).ok()?));
        let (Some(message), Some(echoes)) = (message, slot) else {
            self.corrupted += 1;
            return;
        };
        *echoes += 1;
        if *echoes > 1 {
            self.duplicated += 1;
            return;
        }
        self.received += 1;
        if self.highest > Some(message) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(message));
        self.longest_gap = self.longest_gap.max(self.gap(now));
        self.last_arrival = now;
    }

    pub(super) fn failed_once(&mut self) {
        self.errors += 1;
    }

    pub(super) fn stopped_sending(&mut self, now: Duration) {
        self.sending_ended.get_or_insert(now);
    }

    /// The first reason holds.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.ended.get_or_insert(outcome);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.sending_ended.is_some() && self.received == self.sent
    }

    /// How long there has been nothing since sending ended; `None` before that.
    pub(super) fn waited(&self, now: Duration) -> Option<Duration> {
        self.sending_ended
            .map(|end| now.saturating_sub(end.max(self.last_arrival)))
    }

    pub(super) fn report(&self, now: Duration) -> StreamReport {
        StreamReport {
            sent: self.sent,
            received: self.received,
            lost: self.sent - self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            corrupted: self.corrupted,
            max_gap_millis: self.longest_gap.max(self.gap(now)).as_secs_f64() * 1000.0,
            silent_millis: now.saturating_sub(self.last_arrival).as_secs_f64() * 1000.0,
            ended: self.ended.clone(),
            errors: self.errors,
        }
    }

    fn gap(&self, now: Duration) -> Duration {
        now.min(self.sending_ended.unwrap_or(now))
            .saturating_sub(self.last_arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn loss_duplicates_order_and_gaps() {
        let mut tally = Tally::default();
        (0..6).for_each(|_| tally.sent_one());
        for (message, millis) in [(0, 10), (2, 20), (1, 30), (1, 35), (4, 90)] {
            tally.arrived(Some(message), at(millis));
        }
        tally.arrived(Some(6), at(91));
        tally.arrived(None, at(92));
        tally.failed_once();
        let so_far = StreamReport {
            sent: 6,
            received: 4,
            lost: 2,
            duplicated: 1,
            reordered: 1,
            corrupted: 2,
            max_gap_millis: 60.0,
            silent_millis: 10.0,
            ended: None,
            errors: 1,
        };
        assert_eq!(tally.report(at(100)), so_far);
        tally.stopped_sending(at(200));
        tally.ended(Outcome::Reset);
        tally.ended(Outcome::Closed);
        let end = StreamReport {
            max_gap_millis: 110.0,
            silent_millis: 910.0,
            ended: Some(Outcome::Reset),
            ..so_far
        };
        assert_eq!(tally.report(at(1000)), end);
    }

    #[test]
    fn complete_once_all_is_sent_and_back() {
        let mut tally = Tally::default();
        tally.sent_one();
        tally.arrived(Some(0), at(1));
        assert!(!tally.is_complete());
        assert_eq!(tally.waited(at(2)), None);
        tally.stopped_sending(at(2));
        assert!(tally.is_complete());
        assert_eq!(tally.waited(at(5)), Some(at(3)));
    }
}
