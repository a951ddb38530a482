//! Where a process of a test runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::remains::NETNS;

/// Moves itself into a control group, then becomes the program: `$0` is the group, `$@` the program.
const ENTER: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// A network namespace and a control group. The mounts are everybody's: a process in a place sees the
/// testbed's BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    netns: String,
    cgroup: PathBuf,
}

impl Place {
    pub(crate) fn new(netns: String, cgroup: PathBuf) -> Place {
        Place { netns, cgroup }
    }

    /// The namespace's name, as `ip netns` knows it.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The namespace's file.
    pub fn netns_path(&self) -> PathBuf {
        Path::new(NETNS).join(&self.netns)
    }

    /// The control group's directory.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that will run here. Arguments can be added as usual; the process keeps its number all the
    /// way to `program`. Not `ip netns exec`, which would hide the BPF and control group file systems.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns_path().display()));
        command
            .args(["sh", "-c", ENTER])
            .arg(&self.cgroup)
            .arg(program.as_ref());
        command
    }

    /// Runs `work` on a thread inside the namespace. The control group stays this process's own: a thread
    /// cannot be in another.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.netns_path();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let inside = move || setns(file, CloneFlags::CLONE_NEWNET).map(|()| work());
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        match result {
            Ok(result) => result.with_context(|| format!("enter {}", path.display())),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip -n NAMESPACE` with these arguments, separated by spaces.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        ip(&format!("-n {} {arguments}", self.netns))
    }

    /// Sets `/proc/sys/KEY` of this namespace, as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("{}: {}", self.netns, path.display()))
    }

    /// The address of an interface on the wire, such as `02:00:00:00:00:01`.
    pub fn mac(&self, interface: &str) -> Result<String> {
        let output = Command::new("ip")
            .args(["-n", &self.netns, "-json", "link", "show", interface])
            .output()?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "{}: interface {interface}: {}",
                self.netns,
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        links[0]["address"]
            .as_str()
            .map(str::to_string)
            .ok_or_else(|| anyhow!("{interface} has no address"))
    }
}

/// Runs `ip` with these arguments, separated by spaces.
pub(crate) fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("run ip")?;
    if !output.status.success() {
        bail!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}
