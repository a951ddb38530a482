//! Figures for people.

use std::time::Duration;

/// Prints how long a thing took, each time.
pub(crate) fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| {
        let place = times.len().saturating_sub(1) * share / 100;
        times.get(place).map_or(0, Duration::as_millis)
    };
    eprintln!(
        "{} {what}: median {} ms, 90 % {} ms, longest {} ms",
        times.len(),
        at(50),
        at(90),
        at(100)
    );
}
