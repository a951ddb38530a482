//! Removing what a testbed made, from the records in its directory alone: its owner may be dead.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::owner::Owner;

/// Testbeds' directories are here.
pub(crate) const RUN: &str = "/run";
/// Begins their names, and those of all that they make.
pub(crate) const PREFIX: &str = "weir-";

/// Names of network namespaces, one a line.
const NAMESPACES: &str = "namespaces";
/// Where named network namespaces are.
pub(crate) const NETNS: &str = "/run/netns";
/// The mount point of the BPF file system.
pub(crate) const BPFFS: &str = "bpf";

/// Removes what dead owners left. Others' testbeds are not touched while they live.
pub fn sweep() -> Result<()> {
    for entry in fs::read_dir(RUN).context(RUN)?.flatten() {
        let directory = entry.path();
        let named_so = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if named_so
            && let Some(owner) = Owner::recorded(&directory)
            && !owner.is_alive()?
        {
            remove(&directory)?;
        }
    }
    Ok(())
}

/// Puts a network namespace on record. Before it is made: one that is recorded and was never made does no
/// harm, and the other way round it would stay.
pub(crate) fn record_namespace(directory: &Path, name: &str) -> Result<()> {
    let file = directory.join(NAMESPACES);
    let mut open = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| file.display().to_string())?;
    writeln!(open, "{name}").with_context(|| file.display().to_string())
}

/// Takes everything away, as far as it goes; the record stays if something did not go.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let mut problems = Vec::new();
    let mut note = |result: Result<()>| problems.extend(result.err());
    note(cgroup_of(directory).and_then(|group| cgroup::remove(&group)));
    for name in namespaces(directory) {
        note(remove_namespace(&name));
    }
    note(unmount(&directory.join(BPFFS)));
    if problems.is_empty() {
        return match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", directory.display()))
            }
            _ => Ok(()),
        };
    }
    let all: Vec<String> = problems.iter().map(|problem| format!("{problem:#}")).collect();
    Err(anyhow!("{}", all.join("; ")))
}

/// A testbed's control group has the name of its directory.
pub(crate) fn cgroup_of(directory: &Path) -> Result<PathBuf> {
    Ok(cgroup::mount()?.join(
        directory
            .file_name()
            .context("a testbed's directory has a name")?,
    ))
}

fn namespaces(directory: &Path) -> Vec<String> {
    let list = fs::read_to_string(directory.join(NAMESPACES)).unwrap_or_default();
    list.lines().map(str::to_string).collect()
}

fn remove_namespace(name: &str) -> Result<()> {
    if !Path::new(NETNS).join(name).exists() {
        return Ok(());
    }
    let output = Command::new("ip")
        .args(["netns", "delete", name])
        .output()
        .context("run ip")?;
    if output.status.success() || !Path::new(NETNS).join(name).exists() {
        return Ok(());
    }
    Err(anyhow!(
        "remove namespace {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    ))
}

fn unmount(point: &Path) -> Result<()> {
    match umount2(point, MntFlags::MNT_DETACH) {
        // Not a mount point, or not there.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("unmount {}", point.display())),
    }
}
