//! The node's BPF file system, which holds what outlives the agent.
//!
//! A mount that the agent makes in its pod ends with the pod, and every pin with it: the next agent would find no policy
//! and no flow, and all traffic would be cut until it had programmed the node anew. So an agent in a pod mounts none. It
//! is mounted in the node's own mount namespace, by whoever starts the node, which systemd does, or by [`mount`].

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::info;

use crate::mountinfo::{mount_of, mounts};

/// What a bpffs that we mounted is called in the list of mounts, so that who has no memory knows it.
pub(crate) const MOUNT_SOURCE: &str = "weir";

/// What can be done where [`require`] refuses.
const CURE: &str = "mount one on the node (`mount -t bpf bpf /sys/fs/bpf`, as systemd does), or let the chart do it \
                    (agent.mountBpffs=true)";

/// Mounts a bpffs in the mount namespace of the node, unless there is one. Whether it did.
///
/// # Errors
///
/// If the namespace cannot be entered, which takes `CAP_SYS_ADMIN`, `CAP_SYS_CHROOT` and `CAP_SYS_PTRACE`, or the kernel
/// refuses.
pub fn mount(host_proc: &Path, path: &Path) -> Result<bool> {
    on_node(host_proc, || {
        if is_bpffs(path) {
            return Ok(false);
        }
        // In sysfs nobody can make a directory, but it has the usual one.
        fs::create_dir_all(path).with_context(|| format!("making {} on the node", path.display()))?;
        mount_bpffs(path)?;
        Ok(true)
    })
}

/// Takes away what [`mount`] has mounted, if nothing is in it. Whether it did.
///
/// # Errors
///
/// As [`mount`].
pub fn unmount(host_proc: &Path, path: &Path) -> Result<bool> {
    on_node(host_proc, || {
        let mounts = mounts()?;
        let is_ours = mount_of(&mounts, path)
            .is_some_and(|mount| mount.point == path && mount.kind == "bpf" && mount.source == MOUNT_SOURCE);
        if !is_ours || !is_empty(path)? {
            return Ok(false);
        }
        umount2(path, MntFlags::empty())
            .with_context(|| format!("unmounting {} on the node", path.display()))?;
        Ok(true)
    })
}

/// Refuses a directory that is on no bpffs.
///
/// # Errors
///
/// If it is not; the error says what can be done about it.
pub fn require(directory: &Path) -> Result<()> {
    // It may still have to be made.
    let there = directory.ancestors().find(|path| path.exists());
    if there.is_some_and(is_bpffs) {
        return Ok(());
    }
    bail!(
        "{} is on no BPF file system, and what is pinned elsewhere ends with this pod: {CURE}",
        directory.display()
    )
}

pub(crate) fn mount_bpffs(path: &Path) -> Result<()> {
    nix::mount::mount(
        Some(MOUNT_SOURCE),
        path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| format!("mounting a bpffs on {}", path.display()))?;
    info!(path = %path.display(), "mounted a bpffs, since there was none");
    Ok(())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// But for `maps.debug` and `progs.debug`, which some kernels put into every bpffs: a name with a dot is one that nobody
/// else can make.
fn is_empty(path: &Path) -> Result<bool> {
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry.with_context(|| format!("reading {}", path.display()))?;
        if !entry.file_name().to_string_lossy().contains('.') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// On a thread that ends with the work, since it keeps the node's mount namespace.
fn on_node<T: Send>(host_proc: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = host_proc.join("1/ns/mnt");
    let namespace = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let entered = move || {
        // Root and working directory are the process's until then, and only who shares them with nobody may enter.
        unshare(CloneFlags::CLONE_FS).context("separating the thread from the others")?;
        setns(&namespace, CloneFlags::CLONE_NEWNS)
            .with_context(|| format!("entering the node's mount namespace, {}", path.display()))?;
        work()
    };
    let ended = thread::scope(|scope| scope.spawn(entered).join());
    ended.map_err(|_| anyhow!("the thread in the node's mount namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_no_bpffs_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().expect("a directory");
        let wanted = directory.path().join("bpf/weir");
        let error = require(&wanted).expect_err("refused").to_string();
        assert_eq!(
            error,
            format!(
                "{} is on no BPF file system, and what is pinned elsewhere ends with this pod: mount one on the node \
                 (`mount -t bpf bpf /sys/fs/bpf`, as systemd does), or let the chart do it (agent.mountBpffs=true)",
                wanted.display()
            )
        );
    }
}
