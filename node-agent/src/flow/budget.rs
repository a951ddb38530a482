//! How many records a second the node writes.

const SECOND: u64 = 1_000_000_000;

/// A token bucket that holds one second's worth and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBudget {
    records_per_second: u32,
    /// Nanoseconds of rate, times records: a record costs [`SECOND`].
    available: u128,
    last: Option<u64>,
}

impl RecordBudget {
    /// What GKE uses.
    pub const DEFAULT_RECORDS_PER_SECOND: u32 = 500;

    pub fn new(records_per_second: u32) -> Self {
        Self {
            records_per_second,
            available: full(records_per_second),
            last: None,
        }
    }

    /// Whether one more record may be written. `now` is in nanoseconds of a clock that does not go back.
    pub fn admit(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.last.unwrap_or(now));
        self.last = Some(now.max(self.last.unwrap_or(now)));
        let refill = u128::from(elapsed) * u128::from(self.records_per_second);
        self.available = (self.available + refill).min(full(self.records_per_second));
        match self.available.checked_sub(u128::from(SECOND)) {
            Some(rest) => {
                self.available = rest;
                true
            }
            None => false,
        }
    }
}

fn full(records_per_second: u32) -> u128 {
    u128::from(records_per_second) * u128::from(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(budget: &mut RecordBudget, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| budget.admit(now)).count()
    }

    #[test]
    fn a_second_is_the_most_that_can_be_saved_up() {
        let mut budget = RecordBudget::new(500);
        assert_eq!(admitted(&mut budget, 0, 600), 500);
        assert_eq!(admitted(&mut budget, SECOND / 2, 600), 250);
        assert_eq!(admitted(&mut budget, 100 * SECOND, 600), 500);
        assert_eq!(admitted(&mut budget, 100 * SECOND + SECOND / 500 - 1, 1), 0);
        assert_eq!(admitted(&mut budget, 100 * SECOND + SECOND / 500, 2), 1);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut budget = RecordBudget::new(1);
        assert_eq!(admitted(&mut budget, 10 * SECOND, 2), 1);
        assert_eq!(admitted(&mut budget, 5 * SECOND, 1), 0);
        assert_eq!(admitted(&mut budget, 10 * SECOND + SECOND / 2, 1), 0);
        assert_eq!(admitted(&mut budget, 11 * SECOND, 1), 1);
    }

    #[test]
    fn no_budget_admits_nothing() {
        assert_eq!(admitted(&mut RecordBudget::new(0), 0, 3), 0);
    }
}
