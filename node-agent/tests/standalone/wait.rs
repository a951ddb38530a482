//! Waiting for what an agent does in its own time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a change may take to be in force, and a line to be written: long, for a machine that does other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until it is so; `ask` gives what was wanted, or else what there is instead.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask()? {
            Ok(found) => return Ok(found),
            Err(instead) if start.elapsed() > PATIENCE => {
                bail!("{what}: not within {PATIENCE:?}:\n{instead}")
            }
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}
