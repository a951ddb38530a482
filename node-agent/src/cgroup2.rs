//! Where a node has control groups of version 2: at `/sys/fs/cgroup`, or at `/sys/fs/cgroup/unified` where the controllers
//! are in hierarchies of version 1 (systemd's hybrid layout).

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::mountinfo::{Mount, mounts};

/// The directory itself, if it is on cgroup2; else the mount of cgroup2 below it that is nearest; `None` where there is
/// none.
///
/// # Errors
///
/// If the list of mounts cannot be read.
pub fn find(directory: &Path) -> Result<Option<PathBuf>> {
    if is_cgroup2(directory) {
        return Ok(Some(directory.to_owned()));
    }
    let found = below(&mounts()?, directory);
    Ok(found.into_iter().find(|point| is_cgroup2(point)))
}

/// Mounts of cgroup2, the nearest first. Something else may lie over one.
fn below(mounts: &[Mount], directory: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| mount.kind == "cgroup2" && mount.point.starts_with(directory))
        .map(|mount| mount.point.clone())
        .collect();
    points.sort_by_key(|point| (point.components().count(), point.clone()));
    points
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo::parse;

    #[test]
    fn the_nearest_comes_first() {
        let mounts = parse(
            "1 0 0:1 / /host/cgroup/a/b/c rw - cgroup2 none rw\n\
             2 0 0:2 / /host/cgroup/memory rw - cgroup cgroup rw,memory\n\
             3 0 0:3 / /host/cgroup/unified rw - cgroup2 none rw\n\
             4 0 0:3 / /host/cgroups rw - cgroup2 none rw\n",
        );
        let found = below(&mounts, Path::new("/host/cgroup"));
        assert_eq!(
            found,
            [
                PathBuf::from("/host/cgroup/unified"),
                PathBuf::from("/host/cgroup/a/b/c")
            ]
        );
    }

    #[test]
    fn nothing_is_found_where_there_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(find(directory.path()).expect("a list"), None);
        assert_eq!(find(&directory.path().join("absent")).expect("a list"), None);
    }
}
