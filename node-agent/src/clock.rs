//! The clock of the programs, as the agent reads it.

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds to add to `CLOCK_MONOTONIC` to get the time since 1970 (UTC).
///
/// # Errors
///
/// If a clock cannot be read.
pub fn wall_offset() -> Result<i64> {
    Ok(nanoseconds(ClockId::CLOCK_REALTIME)? - nanoseconds(ClockId::CLOCK_MONOTONIC)?)
}

fn nanoseconds(clock: ClockId) -> Result<i64> {
    let time = clock_gettime(clock).context("reading a clock")?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
