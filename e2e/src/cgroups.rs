//! A node's control groups: one in every hierarchy, below the group that we are in ourselves.
//!
//! What is proved is the hybrid layout: controllers in hierarchies of version 1, and version 2 without controllers at
//! `/sys/fs/cgroup/unified` (systemd's documentation, "The systemd control group hierarchies").

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::places;

/// Where hierarchies are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Where the version 2 hierarchy is, below [`MOUNT`].
pub const UNIFIED: &str = "unified";

/// How long the kernel may take to empty the group of a process that was killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hierarchy, and the group that a process is in, as a line of `/proc/PID/cgroup` says (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub hierarchy: Hierarchy,
    /// From the hierarchy's root.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 2.
    Unified,
    /// Version 1 with these controllers, as `cpu` or `cpu,cpuacct`.
    Controllers(String),
    /// Version 1 without controllers, as `systemd`.
    Named(String),
}

impl Hierarchy {
    /// Its folder below [`MOUNT`].
    #[must_use]
    pub fn folder(&self) -> &str {
        match self {
            Self::Unified => UNIFIED,
            Self::Controllers(name) | Self::Named(name) => name,
        }
    }
}

/// The groups of this process, hierarchy by hierarchy.
///
/// # Errors
/// They cannot be read.
pub fn of_this_process() -> Result<Vec<Membership>> {
    // Read at once: the file changes as soon as its reader is moved.
    Ok(parse(&places::read(Path::new("/proc/self/cgroup"))?))
}

/// # Errors
/// The machine has another layout than nodes need.
fn check_layout() -> Result<()> {
    if !Path::new(MOUNT).join(UNIFIED).join("cgroup.procs").exists() {
        bail!(
            "control groups of version 2 are not mounted at {MOUNT}/{UNIFIED}: nodes need the hybrid layout, with the \
             controllers in version 1 (with systemd: start the kernel with systemd.unified_cgroup_hierarchy=0)"
        );
    }
    Ok(())
}

fn parse(text: &str) -> Vec<Membership> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let hierarchy = match (controllers, controllers.strip_prefix("name=")) {
                ("", _) => Hierarchy::Unified,
                (_, Some(name)) => Hierarchy::Named(name.to_owned()),
                (controllers, None) => Hierarchy::Controllers(controllers.to_owned()),
            };
            Some(Membership {
                hierarchy,
                path: path.to_owned(),
            })
        })
        .collect()
}

/// Makes groups `CLUSTER/NODE` below those of this process. Their folders, hierarchy by hierarchy.
///
/// # Errors
/// The kernel refuses one.
pub fn create(cluster: &str, node: &str) -> Result<Vec<PathBuf>> {
    check_layout()?;
    let mut groups = Vec::new();
    for Membership { hierarchy, path } in of_this_process()? {
        let own = Path::new(MOUNT)
            .join(hierarchy.folder())
            .join(path.trim_start_matches('/'));
        let of_cluster = own.join(cluster);
        let of_node = of_cluster.join(node);
        for (parent, group) in [(&own, &of_cluster), (&of_cluster, &of_node)] {
            fs::create_dir_all(group).with_context(|| format!("creating {}", group.display()))?;
            if hierarchy == Hierarchy::Controllers("cpuset".to_owned()) {
                inherit_cpus(parent, group)?;
            }
        }
        groups.push(of_node);
    }
    Ok(groups)
}

/// A new group of this controller has no processors and no memory, and takes no process before it has.
fn inherit_cpus(parent: &Path, group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        places::write(&group.join(file), places::read(&parent.join(file))?)?;
    }
    Ok(())
}

/// Moves this process into groups.
///
/// # Errors
/// The kernel refuses one.
pub fn enter(groups: &[PathBuf]) -> Result<()> {
    for group in groups {
        places::write(&group.join("cgroup.procs"), std::process::id().to_string())?;
    }
    Ok(())
}

/// Ends every process in a group and below it, where the kernel can do that: in version 2, since Linux 5.14.
///
/// # Errors
/// The kernel refuses.
pub fn kill(group: &Path) -> Result<()> {
    let file = group.join("cgroup.kill");
    if file.exists() {
        places::write(&file, "1")?;
    }
    Ok(())
}

/// Removes a group with all below it, once its processes are gone; and the cluster's group above, if it was the last.
///
/// # Errors
/// It is not empty after twenty seconds.
pub fn remove(group: &Path) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = remove_tree(group) {
        if start.elapsed() > PATIENCE {
            return Err(error).with_context(|| format!("removing {}", group.display()));
        }
        sleep(Duration::from_millis(50));
    }
    if let Some(of_cluster) = group.parent() {
        // Other nodes may have theirs in it.
        let _ = fs::remove_dir(of_cluster);
    }
    Ok(())
}

/// Deepest first: the files in a group are the kernel's, and go with it.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_which_groups_a_process_is_in() {
        let text = "9:name=systemd:/\n4:memory:/a/b:c\n2:cpu,cpuacct:/\n0::/x\n";
        let membership = |hierarchy, path: &str| Membership {
            hierarchy,
            path: path.to_owned(),
        };
        assert_eq!(
            parse(text),
            [
                membership(Hierarchy::Named("systemd".to_owned()), "/"),
                membership(Hierarchy::Controllers("memory".to_owned()), "/a/b:c"),
                membership(Hierarchy::Controllers("cpu,cpuacct".to_owned()), "/"),
                membership(Hierarchy::Unified, "/x"),
            ]
        );
    }
}
