//! Starting `weir-netperf` in a place.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Measure, Request, Sample, Serve};
use crate::place::Place;
use crate::process::Process;
use crate::program::program;
use crate::traffic::READY;

/// Above everything but the kernel's own threads: lower numbers of `SCHED_FIFO` give way to higher ones.
const PRIORITY: &str = "10";

impl Place {
    /// Starts a server in real time and waits until it is bound. It ends when dropped.
    pub fn measuring_server(&self, serve: &Serve) -> Result<Process> {
        let mut command = self.netperf(&Request::Serve(serve.clone()))?;
        let mut process = Process::spawn("weir-netperf", command.stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().context("a server's output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("a server's output")?;
        if line.trim_end() != READY {
            bail!("{}: weir-netperf did not start", self.netns());
        }
        Ok(process)
    }

    /// Measures once, in real time.
    pub fn measure(&self, measure: &Measure) -> Result<Sample> {
        let output = self
            .netperf(&Request::Measure(measure.clone()))?
            .output()
            .context("run weir-netperf")?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: weir-netperf: {}: {}",
                self.netns(),
                output.status,
                problem.trim_end()
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("weir-netperf: {text}"))
    }

    fn netperf(&self, request: &Request) -> Result<Command> {
        let mut command = self.command("chrt");
        command.args(["--fifo", PRIORITY]).arg(program("weir-netperf")?);
        command
            .args(crate::traffic::arguments(request))
            .stdin(Stdio::null());
        Ok(command)
    }
}
