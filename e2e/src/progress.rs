//! What a person who waits gets to read: one line a step on standard error, with the seconds since the start.

use std::fmt::Display;
use std::time::Instant;

/// The clock of one task.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// One line: what begins, or what is there.
    pub fn say(&self, what: impl Display) {
        eprintln!("{:7.1} s  {what}", self.start.elapsed().as_secs_f64());
    }
}
