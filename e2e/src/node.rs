//! A node: namespaces of this machine with a container runtime and a kubelet in them.
//!
//! All processes of a node descend from one, its PID 1, and end with it. Nothing that a node mounts is seen outside.

mod configuration;
mod enter;
mod init;
mod mounts;
mod supervise;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroups;
use crate::own_program::own_program;
use crate::places;
use crate::process::{self, Recorded};
use crate::seed;

pub use enter::enter;
pub use init::init;

/// How long the kernel may take to end all processes of a node.
const PATIENCE: Duration = Duration::from_secs(20);

/// All that a node needs to know to come up, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    pub zone: String,
    /// The primary one first.
    pub addresses: Vec<IpAddr>,
    /// As `ip netns` knows it.
    pub netns: String,
    /// The group of the cluster's nodes.
    pub cgroup: String,
    /// The addresses of the Service that answers DNS.
    pub dns: Vec<IpAddr>,
    /// Where the certificates of [`crate::certificates::Certificates`] are.
    pub certificates: PathBuf,
    /// The node's own files.
    pub folder: PathBuf,
    /// Where the node's programs log to.
    pub logs: PathBuf,
}

impl Spec {
    fn file(&self) -> PathBuf {
        self.folder.join("spec.json")
    }

    fn process_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn cgroups_file(&self) -> PathBuf {
        self.folder.join("cgroups")
    }

    /// The log of one of its programs.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{}-{program}.log", self.name))
    }

    /// Reads a file that [`start`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or is not one.
    pub fn read(file: &Path) -> Result<Self> {
        serde_json::from_str(&places::read(file)?).with_context(|| format!("reading {}", file.display()))
    }

    /// Its PID 1, as this machine numbers it; `None` when it does not run.
    #[must_use]
    pub fn process(&self) -> Option<Recorded> {
        Recorded::read(&self.process_file()).filter(Recorded::is_alive)
    }

    /// A program to be run on the node, to add arguments to.
    ///
    /// # Errors
    /// The node does not run.
    pub fn command(&self, program: &str) -> Result<Command> {
        let process = self
            .process()
            .ok_or_else(|| anyhow!("{} does not run", self.name))?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", process.pid()))
            .args([
                "--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--wd=/", "--",
            ])
            .arg(program);
        Ok(command)
    }
}

/// Starts a node whose network is there. Its images come from the seed; all else of an earlier life stays, as on a
/// machine that was switched off.
///
/// # Errors
/// Its processes cannot be started; the error cites its log.
pub fn start(spec: &Spec) -> Result<()> {
    places::create_dir(&spec.folder, 0o755)?;
    seed::plant(&spec.folder.join("var/lib/containerd"))?;
    places::write(&spec.file(), serde_json::to_string_pretty(spec)?)?;
    let groups = cgroups::create(&spec.cgroup, &spec.name)?;
    let lines: Vec<_> = groups.iter().map(|group| group.display().to_string()).collect();
    places::write(&spec.cgroups_file(), lines.join("\n"))?;
    let log = spec.log("init");
    let mut command = Command::new(own_program()?);
    command.arg("node-enter").arg(spec.file());
    let status = process::log_to(&mut command, &log)?
        .status()
        .with_context(|| format!("starting {}", spec.name))?;
    if !status.success() {
        anyhow::bail!("{} does not start; {}", spec.name, process::tail(&log));
    }
    Ok(())
}

/// Ends a node with everything in it, at once and without its knowledge, as when the power fails. Its files stay.
///
/// # Errors
/// A process or a control group of it stays.
pub fn stop(folder: &Path) -> Result<()> {
    let record = folder.join("pid");
    if let Some(process) = Recorded::read(&record) {
        process.end(Signal::SIGKILL, PATIENCE)?;
    }
    let groups = places::read(&folder.join("cgroups")).unwrap_or_default();
    for group in groups.lines() {
        // Also what is not on record, as when a start was interrupted.
        cgroups::kill(Path::new(group))?;
    }
    for group in groups.lines() {
        cgroups::remove(Path::new(group))?;
    }
    Ok(())
}
