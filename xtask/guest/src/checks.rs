//! Runs what the host wants to be run, one after the other.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

/// One check a line: its name, its program, and arguments, separated by spaces.
const LIST: &str = "/checks";

pub(crate) fn run() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    println!("weir-guest: kernel {}", release.trim_end());
    for line in fs::read_to_string(LIST).context(LIST)?.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(program)) = (words.next(), words.next()) else {
            continue;
        };
        let start = Instant::now();
        let passed = succeeds(Command::new(program).args(words))?;
        let word = if passed { "passed" } else { "failed" };
        println!(
            "weir-guest: check {name} {word} {:.1}",
            start.elapsed().as_secs_f64()
        );
    }
    println!("weir-guest: end");
    Ok(())
}

/// Waits for everybody meanwhile: who has lost its parent is a child of process 1, and stays listed until it is
/// waited for.
fn succeeds(command: &mut Command) -> Result<bool> {
    let child = command
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        let ended = wait().context("waiting")?;
        if ended.pid() == Some(child) {
            return Ok(matches!(ended, WaitStatus::Exited(_, 0)));
        }
    }
}
