//! Control groups, version 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a killed process may take to leave its group.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the version 2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
pub(crate) fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    // Columns: device, mount point, type, options (fstab(5)).
    let mut points = mounts.lines().filter_map(|line| {
        let mut columns = line.split(' ').skip(1);
        columns.next().filter(|_| columns.next() == Some("cgroup2"))
    });
    points
        .next()
        .map(PathBuf::from)
        .context("no cgroup2 file system is mounted")
}

/// Kills every process in the group and below it, and removes them all. Fine if it is gone already.
pub(crate) fn remove(group: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let groups = tree(group)?;
        let mut processes = Vec::new();
        for group in &groups {
            processes.extend(members(group)?);
        }
        let mut busy = !processes.is_empty();
        if !busy {
            for group in groups.iter().rev() {
                busy |= !remove_empty(group)?;
            }
        }
        if !busy {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{}: processes {processes:?} do not end", group.display());
        }
        for pid in processes {
            // It may have ended by itself since.
            let _ = kill(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(5));
    }
}

/// The group and all below it, parents first.
fn tree(group: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![group.to_path_buf()];
    while let Some(group) = open.pop() {
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| group.display().to_string()),
        };
        open.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
        found.push(group);
    }
    Ok(found)
}

fn members(group: &Path) -> Result<Vec<Pid>> {
    match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(list) => Ok(list
            .lines()
            .filter_map(|line| line.parse().ok().map(Pid::from_raw))
            .collect()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| group.display().to_string()),
    }
}

/// False while a process is on its way out that is not listed any more.
fn remove_empty(group: &Path) -> Result<bool> {
    match fs::remove_dir(group) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", group.display()))
        }
        _ => Ok(true),
    }
}
