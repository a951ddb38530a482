//! The way into a node's namespaces, up to its first process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::setsid;

use super::Spec;
use crate::cgroups;
use crate::network::netns_path;
use crate::own_program::own_program;
use crate::places;
use crate::process::Recorded;

/// Moves this process, which must have one thread, into the control groups and namespaces of a node, and starts the
/// node's PID 1 there. This process itself is not of the node's PID namespace, and should end.
///
/// # Errors
/// The kernel refuses a step.
pub fn enter(spec_file: &Path) -> Result<()> {
    let spec = Spec::read(spec_file)?;
    let this = own_program()?;
    // The terminal's signals are not for the node. It fails only if this process leads a session already.
    let _ = setsid();
    let groups = places::read(&spec.cgroups_file())?;
    let groups: Vec<PathBuf> = groups.lines().map(PathBuf::from).collect();
    cgroups::enter(&groups)?;
    let netns = netns_path(&spec.netns);
    let file = File::open(&netns).with_context(|| format!("opening {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", netns.display()))?;
    // The control group namespace after the groups: what a process is in then becomes its root. The mount namespace is
    // the first process's own affair: this one reads its /proc below.
    unshare(
        CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("making namespaces")?;
    let init = Command::new(this)
        .arg("node-init")
        .arg(spec_file)
        .current_dir("/")
        .spawn()
        .context("starting the first process of the node")?;
    Recorded::of(init.id())
        .ok_or_else(|| anyhow!("the first process of the node ended at once"))?
        .write(&spec.process_file())
}
