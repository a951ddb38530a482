//! Ends a cluster, whatever is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::control_plane;
use crate::network;
use crate::node;
use crate::places;
use crate::plan::ClusterName;
use crate::process::Recorded;
use crate::progress::Progress;

/// How long the kernel may take to end a process.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of a cluster's state outlives it, until one of that name starts again.
const LOGS: &str = "logs";

/// Ends all processes of a cluster, and removes its namespaces, control groups and files. Logs stay. Nothing happens
/// when there is no such cluster.
///
/// # Errors
/// Something stays; the error names it.
pub fn down(name: &ClusterName, progress: Progress) -> Result<()> {
    let state = places::state(&name.to_string())?;
    let namespaces = network::existing(&name.prefix())?;
    if !state.join("cluster.json").exists() && namespaces.is_empty() {
        return Ok(());
    }
    progress.say(format_args!("ending the cluster {name}"));
    control_plane::stop_all(&state)?;
    for folder in node_folders(&state) {
        node::stop(&folder)?;
    }
    end_inhabitants(&namespaces)?;
    for namespace in &namespaces {
        network::remove(namespace)?;
    }
    remove_state(&state)?;
    progress.say(format_args!(
        "the cluster {name} is gone; its logs are in {}",
        state.join(LOGS).display()
    ));
    Ok(())
}

fn node_folders(state: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(state.join("nodes")).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Whoever was started in the cluster's network by others, as a kubectl that waits. Without them a namespace has no
/// end.
fn end_inhabitants(namespaces: &[String]) -> Result<()> {
    let inodes: BTreeSet<u64> = namespaces
        .iter()
        .filter_map(|name| Some(fs::metadata(network::netns_path(name)).ok()?.ino()))
        .collect();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let path = entry?.path();
        let pid = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        let network = fs::metadata(path.join("ns/net"))
            .ok()
            .map(|metadata| metadata.ino());
        if let (Some(pid), Some(inode)) = (pid, network)
            && inodes.contains(&inode)
            && let Some(process) = Recorded::of(pid)
        {
            process.end(Signal::SIGKILL, PATIENCE)?;
        }
    }
    Ok(())
}

fn remove_state(state: &Path) -> Result<()> {
    let entries = fs::read_dir(state).with_context(|| format!("reading {}", state.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == LOGS) {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
