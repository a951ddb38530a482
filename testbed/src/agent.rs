//! The program under test: a standalone agent on a node.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::manifests::Manifests;
use crate::place::Place;
use crate::process::Process;
use crate::program::program;
use crate::testbed::Testbed;

/// How long an agent may take to be ready, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where metrics and health are served, in the node's namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// How an agent is started, beyond what the testbed knows.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// The node's interface that leads out, if it has one.
    pub uplink: Option<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The program, if not the one that [`program`] finds.
    pub program: Option<PathBuf>,
}

/// A standalone agent, and the files that it reads and writes. Killed when dropped; what it put into the
/// kernel stays until the testbed is removed.
#[derive(Debug)]
pub struct Agent {
    node: Place,
    node_name: String,
    bpffs: PathBuf,
    directory: PathBuf,
    options: AgentOptions,
    process: Process,
}

/// One line of the flow log.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRecord {
    /// As it was written.
    pub line: String,
    /// As it is read.
    pub fields: Value,
}

impl Agent {
    /// Starts an agent for `node` and waits until it is ready. The manifests are those of
    /// [`Agent::manifests_of`]; write them before or after.
    pub fn start(testbed: &Testbed, node: &Place, node_name: &str, options: AgentOptions) -> Result<Agent> {
        let directory = testbed.subdirectory(node_name)?;
        for name in ["manifests", "state"] {
            testbed.subdirectory(&format!("{node_name}/{name}"))?;
        }
        let process = spawn(node, node_name, &testbed.bpffs(), &directory, &options)?;
        let mut agent = Agent {
            node: node.clone(),
            node_name: node_name.into(),
            bpffs: testbed.bpffs(),
            directory,
            options,
            process,
        };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// The directory that the agent of that node watches.
    pub fn manifests_of(testbed: &Testbed, node_name: &str) -> Result<Manifests> {
        Ok(Manifests::in_directory(
            &testbed.subdirectory(&format!("{node_name}/manifests"))?,
        ))
    }

    pub fn manifests(&self) -> Manifests {
        Manifests::in_directory(&self.directory.join("manifests"))
    }

    /// What the agent prints. It goes on over restarts.
    pub fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    pub fn flow_log(&self) -> PathBuf {
        flow_log(&self.directory)
    }

    /// The directory of its lock.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        self.process.tail()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `SIGKILL`: the agent has no chance to tidy up.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// `SIGTERM`; an error if it does not end well, in time.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(PATIENCE)?;
        if !status.success() {
            bail!("weir-agent ended with {status}; {}", self.process.tail());
        }
        Ok(())
    }

    /// Starts it again as it was started before, and waits until it is ready. A running one is killed first.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process.ended()?.is_none() {
            self.process.kill9()?;
        }
        self.process = spawn(
            &self.node,
            &self.node_name,
            &self.bpffs,
            &self.directory,
            &self.options,
        )?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = ready_file(&self.directory);
        let start = Instant::now();
        while !ready.exists() {
            if let Some(status) = self.process.ended()? {
                bail!(
                    "weir-agent ended with {status} before it was ready; {}",
                    self.process.tail()
                );
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "weir-agent was not ready within {PATIENCE:?}; {}",
                    self.process.tail()
                );
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The body of `GET PATH` at the address of metrics and health. An error unless the status is 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let response = self
            .node
            .run(|| http_get(path))?
            .with_context(|| format!("GET {path}"))?;
        let (head, body) = response.split_once("\r\n\r\n").context("not a response")?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            bail!("GET {path}: {status}: {body}");
        }
        Ok(body.to_string())
    }

    /// The value of a metric: the sum over all series of that name whose labels include `labels`, each
    /// written as in the exposition format, such as `reason="policy"`. Nothing there counts as zero.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        Ok(sum_metric(&self.get("/metrics")?, name, labels))
    }

    /// All complete records of the flow log so far.
    pub fn flow_records(&self) -> Result<Vec<FlowRecord>> {
        let file = self.flow_log();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| -> Result<FlowRecord> {
            let fields = serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))?;
            Ok(FlowRecord {
                line: line.into(),
                fields,
            })
        };
        complete.lines().map(parse).collect()
    }

    /// The first record of the flow log, after the first `skip`, for whose fields `matches` holds; waits for it.
    pub fn wait_for_flow(
        &self,
        skip: usize,
        patience: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<FlowRecord> {
        let start = Instant::now();
        loop {
            let mut records = self.flow_records()?;
            let mut new = records.drain(skip.min(records.len())..);
            if let Some(record) = new.find(|record| matches(&record.fields)) {
                return Ok(record);
            }
            drop(new);
            if start.elapsed() > patience {
                let seen = self.flow_records()?;
                let seen: Vec<&str> = seen
                    .iter()
                    .skip(skip)
                    .map(|record| record.line.as_str())
                    .collect();
                let file = self.flow_log();
                bail!(
                    "no such record in {} within {patience:?}; there are:\n{}",
                    file.display(),
                    seen.join("\n")
                );
            }
            sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(
    node: &Place,
    node_name: &str,
    bpffs: &Path,
    directory: &Path,
    options: &AgentOptions,
) -> Result<Process> {
    let ready = ready_file(directory);
    match fs::remove_file(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| ready.display().to_string());
        }
        _ => {}
    }
    let agent = options
        .program
        .clone()
        .map_or_else(|| program("weir-agent"), Ok)?;
    let mut command: Command = node.command(agent);
    command.arg("standalone");
    command.arg("--manifests").arg(directory.join("manifests"));
    command.arg("--node-name").arg(node_name);
    command.arg("--bpffs").arg(bpffs);
    command.arg("--cgroup").arg(node.cgroup());
    command.arg("--state-dir").arg(directory.join("state"));
    command.arg("--flow-log").arg(flow_log(directory));
    command.arg("--metrics-address").arg(METRICS.to_string());
    command.arg("--ready-file").arg(&ready);
    if let Some(uplink) = &options.uplink {
        command.arg("--uplink").arg(uplink);
    }
    command.args(&options.arguments);
    Process::spawn_logged("weir-agent", &mut command, &directory.join("agent.log"))
}

fn ready_file(directory: &Path) -> PathBuf {
    directory.join("ready")
}

fn flow_log(directory: &Path) -> PathBuf {
    directory.join("policy_action.log")
}

fn http_get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&METRICS, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: node\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// The text format of Prometheus: `NAME{LABELS} VALUE`, comments begin with `#`.
fn sum_metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let mut sum = 0.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (metric, own) = series.split_once('{').unwrap_or((series, ""));
        let own: Vec<&str> = own.trim_end_matches('}').split(',').collect();
        if metric == name && labels.iter().all(|label| own.contains(label)) {
            sum += value.parse::<f64>().unwrap_or(0.0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_series_that_match() {
        let text =
            "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\na_more 9\nb 5\n";
        assert_eq!(sum_metric(text, "a", &["y=\"2\""]).to_bits(), 7.0_f64.to_bits());
        assert_eq!(
            sum_metric(text, "a", &["x=\"1\"", "y=\"2\""]).to_bits(),
            3.0_f64.to_bits()
        );
        assert_eq!(sum_metric(text, "b", &[]).to_bits(), 5.0_f64.to_bits());
        assert_eq!(sum_metric(text, "c", &[]).to_bits(), 0.0_f64.to_bits());
    }
}
