//! What is mounted where, as the kernel lists it (proc_pid_mountinfo(5)).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A mount, as the mount namespace sees it that the list is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    /// Of file system, as `bpf` or `cgroup2`.
    pub kind: String,
    /// What who mounted it has called it.
    pub source: String,
}

/// Of the calling thread, which may have a mount namespace of its own. A mount that lies over another one comes after
/// it.
///
/// # Errors
///
/// If the list cannot be read.
pub fn mounts() -> Result<Vec<Mount>> {
    let path = "/proc/thread-self/mountinfo";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(parse(&text))
}

/// The mount that a path is on.
#[must_use]
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        // Of mounts one over the other the last is the one that is seen.
        .max_by_key(|mount| mount.point.components().count())
}

/// Lines that are no mounts are left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

/// As `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw`: before the hyphen there may be any number of fields
/// about propagation.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    Some(Mount {
        point: PathBuf::from(unescape(before.split(' ').nth(4)?)),
        kind: after.next()?.to_owned(),
        source: unescape(after.next()?),
    })
}

/// Blanks, tabs, line ends and backslashes stand in octal.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (octal, plain)| {
            text.replace(octal, plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
23 28 0:21 / /proc rw,nosuid - proc proc rw
25 24 0:23 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:24 /../.. /sys/fs/cgroup/unified rw,nosuid shared:10 master:3 - cgroup2 cgroup2 rw,nsdelegate
30 24 0:28 / /sys/fs/bpf rw - bpf weir rw,mode=700
31 30 0:29 / /run/a\\040-\\040b rw - tmpfs tmp\\134fs rw
no mount at all
";

    fn of(point: &str, kind: &str, source: &str) -> Mount {
        Mount {
            point: point.into(),
            kind: kind.into(),
            source: source.into(),
        }
    }

    #[test]
    fn mounts_are_read_with_their_escapes_and_whatever_stands_between() {
        assert_eq!(
            parse(HYBRID),
            [
                of("/proc", "proc", "proc"),
                of("/sys/fs/cgroup", "tmpfs", "tmpfs"),
                of("/sys/fs/cgroup/unified", "cgroup2", "cgroup2"),
                of("/sys/fs/bpf", "bpf", "weir"),
                of("/run/a - b", "tmpfs", "tmp\\fs"),
            ]
        );
    }

    #[test]
    fn a_path_is_on_the_innermost_mount_and_there_on_the_last() {
        let mounts = [
            of("/", "ext4", "a"),
            of("/sys", "sysfs", "b"),
            of("/sys/fs/bpf", "bpf", "c"),
            of("/sys/fs/bpf", "bpf", "d"),
        ];
        let source = |path: &str| mount_of(&mounts, Path::new(path)).map(|mount| mount.source.as_str());
        assert_eq!(source("/sys/fs/bpf/weir/v1"), Some("d"));
        assert_eq!(source("/sys/fs/bpfilter"), Some("b"));
        assert_eq!(source("/run"), Some("a"));
    }
}
