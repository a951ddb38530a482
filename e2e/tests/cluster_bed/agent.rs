//! The agents, as processes of this machine, and what they count.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_e2e::node::Spec;
use weir_e2e::process::Recorded;

use super::Bed;

const PROGRAM: &str = "weir-agent";
const METRICS_PORT: u16 = 9962;

/// How long the kernel may take to end a process.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Agent {
    process: Recorded,
}

impl Agent {
    /// The agent that runs on a node; pods in the network of the node have its namespace.
    pub(crate) fn find(node: &Spec) -> Option<Self> {
        let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let of_node = network(node.process()?.pid().cast_unsigned())?;
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == PROGRAM && network(*pid).as_ref() == Some(&of_node)
        })
        .find_map(Recorded::of)
        .map(|process| Self { process })
    }

    pub(crate) fn on(node: &Spec) -> Self {
        Self::find(node).unwrap_or_else(|| panic!("no agent runs on {}", node.name))
    }

    pub(crate) fn kill(&self) {
        self.process.end(Signal::SIGKILL, PATIENCE).expect("killed");
    }

    /// Until [`Agent::resume`] is called it does nothing, and keeps its connections.
    pub(crate) fn suspend(&self) {
        kill(Pid::from_raw(self.process.pid()), Signal::SIGSTOP).expect("stopped");
    }

    pub(crate) fn resume(&self) {
        kill(Pid::from_raw(self.process.pid()), Signal::SIGCONT).expect("continued");
    }
}

/// What the agent of a node counts, by series as they are written.
pub(crate) fn metrics(bed: &Bed, node: &Spec) -> BTreeMap<String, f64> {
    let mut curl: Command = bed.cluster.in_control_plane("curl");
    let url = format!("http://{}:{METRICS_PORT}/metrics", node.addresses[0]);
    let output = curl
        .args(["-sS", "--fail", "--max-time", "5", &url])
        .output()
        .expect("curl");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url}: {error}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}
