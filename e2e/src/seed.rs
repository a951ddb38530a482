//! The images of a cluster, imported into a containerd once. Each node begins with a copy of its folder: no node
//! imports anything, and nodes share the disk and the page cache.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::lock::lock;
use crate::own_program::own_program;
use crate::process::{self, Recorded};
use crate::progress::Progress;
use crate::recipes::{CONTAINERD_SERVER, CTR};
use crate::{build, places};

/// How long containerd may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the containerd that imports, in a mount namespace of its own.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Makes the seed of these archives, if the one that is there is of others.
///
/// # Errors
/// containerd does not start, or refuses an image.
pub fn ensure(archives: &[PathBuf], progress: Progress) -> Result<()> {
    let key = key(archives)?;
    let is_there =
        || -> Result<bool> { Ok(places::read(&folder()?.join("key")).is_ok_and(|text| text == key)) };
    if is_there()? {
        return Ok(());
    }
    let _lock = lock("seed", progress)?;
    if is_there()? {
        return Ok(());
    }
    progress.say("importing the images, once for all nodes");
    remove(&folder()?)?;
    places::create_dir(&folder()?, 0o755)?;
    let mut command = Command::new(own_program()?);
    process::run(command.arg("make-seed").args(archives))?;
    places::write(&folder()?.join("key"), key)
}

fn folder() -> Result<PathBuf> {
    Ok(places::root()?.join("seed"))
}

fn key(archives: &[PathBuf]) -> Result<String> {
    let mut key = String::new();
    for archive in archives {
        let metadata = fs::metadata(archive).with_context(|| archive.display().to_string())?;
        let (size, second, rest) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        key.push_str(&format!("{} {size} {second}.{rest}\n", archive.display()));
    }
    Ok(key)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// Imports archives into the seed's folder, as a process of its own: it moves itself into namespaces, so that nothing
/// of its containerd is seen outside.
///
/// # Errors
/// As [`ensure`].
pub fn make(archives: &[PathBuf]) -> Result<()> {
    let folder = folder()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("making namespaces")?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("separating mounts")?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting /run")?;
    let configuration = folder.join("config.toml");
    places::write(&configuration, containerd(&folder))?;
    let log = folder.join("containerd.log");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(build::path(&CONTAINERD_SERVER)?)
        .arg("--config")
        .arg(&configuration);
    let mut containerd = process::log_to(&mut command, &log)?
        .spawn()
        .context("starting containerd")?;
    process::wait_for("containerd", PATIENCE, || {
        Ok(Path::new(SOCKET).exists().then_some(()))
    })
    .with_context(|| process::tail(&log))?;
    for archive in archives {
        let mut ctr = Command::new(build::path(&CTR)?);
        ctr.args(["--namespace=k8s.io", "images", "import", "--local"])
            .arg(archive);
        process::run(&mut ctr)?;
    }
    if let Some(process) = Recorded::of(containerd.id()) {
        process.end(Signal::SIGTERM, PATIENCE)?;
    }
    containerd.wait().context("waiting for containerd")?;
    Ok(())
}

fn containerd(folder: &Path) -> String {
    format!(
        r#"version = 4
root = "{folder}/root"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri",
]

[grpc]
address = "{SOCKET}"
"#,
        folder = folder.display()
    )
}

/// Makes a node's containerd folder from the seed, unless it has one.
///
/// # Errors
/// It cannot be copied.
pub fn plant(to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        places::create_dir(parent, 0o755)?;
    }
    let root = folder()?.join("root");
    // What is unpacked is never written to again, so that links will do.
    process::run(
        Command::new("cp")
            .args(["--archive", "--link"])
            .args([root.as_path(), to]),
    )?;
    separate_databases(&root, to)
}

/// Databases are written to: each node has its own.
fn separate_databases(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        // The content of images, of which no file is written to, is not looked through.
        if matches!(entry.file_name().to_str(), Some("snapshots" | "blobs")) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            separate_databases(&entry.path(), &copy)?;
        } else if copy.extension().is_some_and(|extension| extension == "db") {
            fs::remove_file(&copy).with_context(|| format!("removing {}", copy.display()))?;
            fs::copy(entry.path(), &copy).with_context(|| format!("copying {}", copy.display()))?;
        }
    }
    Ok(())
}
