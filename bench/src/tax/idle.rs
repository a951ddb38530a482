//! Waiting until a process has nothing more to do.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PERIOD: Duration = Duration::from_secs(1);
/// Clock ticks, of a hundredth of a second, that an idle process may use in a period.
const IDLE_TICKS: u64 = 5;

/// Whether the process has nothing more to do for a while, within this time.
pub(super) fn comes_to_rest(pid: u32, patience: Duration) -> Result<bool> {
    let start = Instant::now();
    let mut before = cpu_ticks(pid)?;
    loop {
        sleep(PERIOD);
        let now = cpu_ticks(pid)?;
        if now - before <= IDLE_TICKS {
            return Ok(true);
        }
        if start.elapsed() > patience {
            return Ok(false);
        }
        before = now;
    }
}

fn cpu_ticks(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| file.clone())?;
    parse(&stat).with_context(|| format!("{file}: no CPU times"))
}

/// Fields 14 and 15 (proc(5)), in user and in kernel mode; the second field is a name in parentheses and may hold
/// anything.
fn parse(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn times_are_read_behind_a_strange_name() {
        assert_eq!(
            parse("1 (a) b 9) S 0 1 1 0 -1 4 5 6 7 8 30 12 11 12 20 0 1 0 4711 13 14\n"),
            Some(42)
        );
        assert_eq!(parse("1 (a) S 0"), None);
    }

    #[test]
    fn this_process_uses_some_time() {
        assert!(cpu_ticks(std::process::id()).is_ok());
        assert!(cpu_ticks(u32::MAX).is_err());
    }

    #[test]
    fn a_process_at_work_does_not_come_to_rest() {
        let work = Arc::new(AtomicBool::new(true));
        let working = Arc::clone(&work);
        let worker = std::thread::spawn(move || while working.load(Ordering::Relaxed) {});
        let busy = comes_to_rest(std::process::id(), Duration::ZERO);
        work.store(false, Ordering::Relaxed);
        worker.join().expect("no panic");
        assert!(!busy.expect("a state"));
    }
}
