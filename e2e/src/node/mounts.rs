//! A node's own view of the file system: the machine's, with a node's own folders over those that the container
//! runtime, the kubelet and network plugins write to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use super::Spec;
use crate::cgroups::{self, Hierarchy, MOUNT, Membership};
use crate::places;

/// Settings of the whole machine that the kubelet would change (`pkg/kubelet/cm/container_manager_linux.go`), among
/// them one that makes the kernel panic on an oops. It finds what it wants in a file of the node and leaves them.
const KUBELET_SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn mount_all(spec: &Spec) -> Result<()> {
    propagate("/", MsFlags::MS_PRIVATE)?;
    new("proc", "/proc", "")?;
    new("sysfs", "/sys", "")?;
    new("bpf", "/sys/fs/bpf", "")?;
    control_groups()?;
    etc(spec)?;
    for (folder, mode) in [("var", 0o755), ("opt", 0o755), ("tmp", 0o1777)] {
        let own = spec.folder.join(folder);
        places::create_dir(&own, mode)?;
        if folder == "var" {
            var(&own)?;
        }
        bind(&own, &Path::new("/").join(folder))?;
    }
    new("tmpfs", "/run", "mode=755")?;
    places::create_dir(Path::new("/run/lock"), 0o755)?;
    places::create_dir(Path::new("/run/netns"), 0o755)?;
    sysctls(spec)?;
    // What pods mount for their node must reach it: `Bidirectional` propagation needs a shared root.
    propagate("/", MsFlags::MS_SHARED)
}

/// Every hierarchy at its usual place; its root is the node's group, by the control group namespace.
fn control_groups() -> Result<()> {
    new("tmpfs", MOUNT, "mode=755")?;
    for Membership { hierarchy, .. } in cgroups::of_this_process()? {
        let point = format!("{MOUNT}/{}", hierarchy.folder());
        places::create_dir(Path::new(&point), 0o755)?;
        match &hierarchy {
            Hierarchy::Unified => new("cgroup2", &point, "")?,
            Hierarchy::Controllers(names) => new("cgroup", &point, names)?,
            Hierarchy::Named(name) => new("cgroup", &point, &format!("none,name={name}"))?,
        }
    }
    Ok(())
}

/// The machine's, with changes kept by the node. `/etc/cni` is not a part of it: a file that is written from outside
/// into the upper folder of an overlay wakes nobody who watches.
fn etc(spec: &Spec) -> Result<()> {
    let (upper, work) = (spec.folder.join("etc-upper"), spec.folder.join("etc-work"));
    for folder in [&upper, &work] {
        places::create_dir(folder, 0o755)?;
    }
    let options = format!(
        "lowerdir=/etc,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    new("overlay", "/etc", &options)?;
    let cni = spec.folder.join("cni");
    places::create_dir(&cni.join("net.d"), 0o755)?;
    places::create_dir(Path::new("/etc/cni"), 0o755)?;
    bind(&cni, Path::new("/etc/cni"))
}

fn var(own: &Path) -> Result<()> {
    for folder in [
        "lib/cni",
        "lib/containerd",
        "lib/kubelet",
        "log/containers",
        "log/pods",
    ] {
        places::create_dir(&own.join(folder), 0o755)?;
    }
    places::create_dir(&own.join("tmp"), 0o1777)?;
    match symlink("/run", own.join("run")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).context("linking /var/run")
        }
        _ => Ok(()),
    }
}

fn sysctls(spec: &Spec) -> Result<()> {
    let folder = spec.folder.join("sysctl");
    places::create_dir(&folder, 0o755)?;
    for (key, value) in KUBELET_SYSCTLS {
        let setting = PathBuf::from("/proc/sys").join(key);
        if fs::exists(&setting)? {
            let file = folder.join(key.replace('/', "."));
            places::write(&file, format!("{value}\n"))?;
            bind(&file, &setting)?;
        }
    }
    Ok(())
}

fn new(kind: &str, point: &str, options: &str) -> Result<()> {
    mount(Some(kind), point, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} ({options}) at {point}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mounting {} at {}", from.display(), to.display()))
}

fn propagate(point: &str, how: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        point,
        None::<&str>,
        how | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("changing how mounts below {point} propagate"))
}
