//! Looks for leftovers, in the kernel's own lists.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Leftover, PREFIX, clusters};
use crate::checkout::Checkout;

const NAMESPACES: &str = "/run/netns";
const LINKS: &str = "/sys/class/net";
const RUN: &str = "/run";

/// How far below a cgroup2 mount our groups are looked for: a node's pods make the whole tree large.
const CGROUP_DEPTH: u32 = 3;

/// All that is of ours, but for the clusters that run.
pub(crate) fn find(checkout: &Checkout) -> Result<BTreeSet<Leftover>> {
    let mounts = mounts()?;
    let namespaces = ours(Path::new(NAMESPACES))?;
    let mut found = BTreeSet::new();
    found.extend(
        ours(Path::new(RUN))?
            .into_iter()
            .filter(|path| path.is_dir())
            .map(Leftover::Directory),
    );
    for mount in mounts.iter().filter(|mount| mount.kind == "cgroup2") {
        cgroups(&mount.point, CGROUP_DEPTH, &mut found)?;
    }
    found.extend(
        ours(Path::new(LINKS))?
            .iter()
            .map(|path| Leftover::Link(name(path))),
    );
    found.extend(namespaces.iter().map(|path| Leftover::Namespace(name(path))));
    found.extend(
        mounts
            .into_iter()
            .filter(|mount| is_our_mount(&mount.point))
            .map(|m| Leftover::Mount(m.point)),
    );
    processes(checkout, &namespaces, &mut found)?;
    let clusters = clusters()?;
    found.retain(|leftover| !clusters::have(&clusters, leftover));
    Ok(found)
}

/// Names of the clusters that run.
pub(super) fn clusters() -> Result<BTreeSet<String>> {
    let namespaces = ours(Path::new(NAMESPACES))?;
    Ok(clusters::of(namespaces.iter().map(|path| name(path))))
}

/// Inodes of the network namespaces of clusters, or of all others of ours.
fn networks(namespaces: &[PathBuf], of_clusters: bool) -> Result<BTreeSet<u64>> {
    let clusters = clusters()?;
    Ok(namespaces
        .iter()
        .filter(|path| clusters::have_namespace(&clusters, &name(path)) == of_clusters)
        .filter_map(|path| fs::metadata(path).ok().map(|meta| meta.ino()))
        .collect())
}

/// A running agent that was not built in this checkout, and is of no cluster.
pub(super) fn foreign_agent(checkout: &Checkout) -> Result<Option<u32>> {
    let target = checkout.target();
    let of_clusters = networks(&ours(Path::new(NAMESPACES))?, true)?;
    let agent = running()?.into_iter().find(|process| {
        process
            .program
            .as_deref()
            .is_some_and(|path| name(path) == "weir-agent" && !path.starts_with(&target))
            && !process.network.is_some_and(|inode| of_clusters.contains(&inode))
    });
    Ok(agent.map(|process| process.pid))
}

/// Directories of testbeds whose owners live. A testbed records its owner in a file: its pid, and when it started.
pub(super) fn testbeds_in_use() -> Result<Vec<String>> {
    let mut in_use = Vec::new();
    for directory in ours(Path::new(RUN))? {
        let owner = fs::read_to_string(directory.join("owner")).unwrap_or_default();
        if let Some((pid, started)) = owner.trim_end().split_once(' ') {
            let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
            if start_time(&stat) == Some(started) {
                in_use.push(directory.display().to_string());
            }
        }
    }
    Ok(in_use)
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); the second field is a name in parentheses and may hold anything.
fn start_time(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)
}

/// Entries of a directory whose names begin with the prefix; none when there is no such directory.
fn ours(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(dir)?;
    found.retain(|path| name(path).starts_with(PREFIX));
    Ok(found)
}

/// Paths in a directory, in order. A directory that goes away while it is read has none.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    let mut paths: Vec<_> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn cgroups(dir: &Path, depth: u32, found: &mut BTreeSet<Leftover>) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    for child in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        cgroups(&child, depth - 1, found)?;
        if child
            .components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with(PREFIX))
        {
            found.insert(Leftover::Cgroup(child));
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
}

fn mounts() -> Result<Vec<Mount>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(table.lines().filter_map(parse_mount).collect())
}

/// One line of mountinfo (proc(5)): the mount point is its fifth field, the type the first one after ` - `.
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?.replace(r"\040", " ");
    Some(Mount {
        point: PathBuf::from(point),
        kind: after.split(' ').next()?.to_owned(),
    })
}

/// Below `/run/weir…`. The mounts of network namespaces, `/run/netns/…`, go with the namespace.
fn is_our_mount(point: &Path) -> bool {
    let below_run = point
        .strip_prefix(RUN)
        .ok()
        .and_then(|rest| rest.components().next());
    below_run.is_some_and(|first| first.as_os_str().to_string_lossy().starts_with(PREFIX))
}

struct Running {
    pid: u32,
    /// What `/proc/<pid>/exe` points to; unknown for kernel threads and other users' processes.
    program: Option<PathBuf>,
    /// Inode of the network namespace.
    network: Option<u64>,
}

fn running() -> Result<Vec<Running>> {
    let mut found = Vec::new();
    for dir in entries(Path::new("/proc"))? {
        let Ok(pid) = name(&dir).parse() else { continue };
        let program = fs::read_link(dir.join("exe")).ok();
        let network = fs::metadata(dir.join("ns/net")).ok().map(|meta| meta.ino());
        found.push(Running {
            pid,
            program,
            network,
        });
    }
    Ok(found)
}

fn processes(checkout: &Checkout, namespaces: &[PathBuf], found: &mut BTreeSet<Leftover>) -> Result<()> {
    let target = checkout.target();
    let (of_clusters, others) = (networks(namespaces, true)?, networks(namespaces, false)?);
    for Running {
        pid,
        program,
        network,
    } in running()?
    {
        let built_here = program
            .as_deref()
            .is_some_and(|path| path.starts_with(&target) && name(path).starts_with(PREFIX));
        if network.is_some_and(|inode| of_clusters.contains(&inode)) {
            continue;
        }
        if built_here || network.is_some_and(|inode| others.contains(&inode)) {
            let program = program.map_or_else(|| "?".to_owned(), |path| path.display().to_string());
            found.insert(Leftover::Process { pid, program });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mountinfo() {
        let line = r"36 35 98:0 /mnt1 /run/weir-a\040b rw,noatime master:1 - bpf bpf rw,mode=700";
        let expected = Mount {
            point: PathBuf::from("/run/weir-a b"),
            kind: "bpf".to_owned(),
        };
        assert_eq!(parse_mount(line), Some(expected));
        assert_eq!(parse_mount("36 35 98:0 /"), None);
    }

    #[test]
    fn reads_start_time() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 13 14\n";
        assert_eq!(start_time(stat), Some("4711"));
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn knows_our_mounts() {
        assert!(is_our_mount(Path::new("/run/weir/bpf")));
        assert!(is_our_mount(Path::new("/run/weir-test-1")));
        assert!(!is_our_mount(Path::new("/run/netns/weir-a")));
        assert!(!is_our_mount(Path::new("/run")));
        assert!(!is_our_mount(Path::new("/sys/fs/bpf")));
    }
}
