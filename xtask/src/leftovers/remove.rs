//! Removes one leftover.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Leftover, PATIENCE};
use crate::privilege::as_root;
use crate::process;

/// Removes it, unless it went away with another.
pub(super) fn remove(leftover: &Leftover) -> Result<()> {
    match leftover {
        Leftover::Process { pid, .. } => end(*pid),
        Leftover::Mount(point) => take_away(point, as_root("umount")?.arg(point)),
        Leftover::Namespace(name) => take_away(
            &Path::new("/run/netns").join(name),
            as_root("ip")?.args(["netns", "delete", name]),
        ),
        Leftover::Link(name) => take_away(
            &Path::new("/sys/class/net").join(name),
            as_root("ip")?.args(["link", "delete", name]),
        ),
        Leftover::Cgroup(path) => take_away(path, as_root("rmdir")?.arg(path)),
        Leftover::Directory(path) => {
            take_away(path, as_root("rm")?.args(["-r", "--one-file-system"]).arg(path))
        }
    }
}

/// Runs the command if the path is there. Links go a little after their namespace: one that is gone when the
/// command has failed is as good as removed.
fn take_away(path: &Path, command: &mut Command) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    match process::run(command) {
        Err(_) if !path.exists() => Ok(()),
        outcome => outcome,
    }
}

fn end(pid: u32) -> Result<()> {
    let entry = PathBuf::from(format!("/proc/{pid}"));
    if !entry.exists() {
        return Ok(());
    }
    process::run(as_root("kill")?.args(["-KILL", &pid.to_string()]))?;
    let start = Instant::now();
    while entry.join("exe").read_link().is_ok() {
        if start.elapsed() > PATIENCE {
            bail!("process {pid} does not end");
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
