//! Cleaning up when the user interrupts.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::remains;
use crate::testbed::Testbed;

/// Whether this process is about to end, and its testbed with it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on `SIGINT`, `SIGTERM` and `SIGHUP` remove the testbed and end the process, with the shell's
/// exit code for it. Handlers, not blocked signals: those a child would inherit, and never end when asked to.
pub fn clean_up_on_interrupt(testbed: &Testbed) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handle signals")?;
    let directory = testbed.directory().to_path_buf();
    let wait = move || {
        let Some(signal) = signals.forever().next() else {
            return;
        };
        INTERRUPTED.store(true, Ordering::SeqCst);
        if let Err(error) = remains::remove(&directory) {
            eprintln!("clean up: {error:#}");
        }
        exit(128 + signal);
    };
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(wait)
        .context("start a thread")?;
    Ok(())
}

/// For threads that find their processes killed under them: the end is near, and is not theirs to make.
pub(crate) fn wait_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
