//! Starting the programs that send and measure, and reading what they say.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::place::Place;
use crate::process::Process;
use crate::traffic::arguments;

/// A server says this once it is bound.
pub const READY: &str = "ready";

/// A program that is about to carry out a request in a place.
pub(crate) struct Launch {
    pub program: &'static str,
    pub command: Command,
    netns: String,
}

impl Launch {
    /// `command` runs the program in `place` and lacks the request.
    pub(crate) fn new(
        place: &Place,
        program: &'static str,
        mut command: Command,
        request: &impl Serialize,
    ) -> Launch {
        command.args(arguments(request)).stdin(Stdio::null());
        Launch {
            program,
            command,
            netns: place.netns().to_owned(),
        }
    }

    /// Starts a server and waits until it is bound. It ends when dropped.
    pub(crate) fn serve(mut self, name: &str) -> Result<Process> {
        let mut process = Process::spawn(self.program, self.command.stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().context("a server's output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("a server's output")?;
        if line.trim_end() != READY {
            bail!("{}: {name} did not start", self.netns);
        }
        Ok(process)
    }

    /// Waits for its end and reads its report.
    pub(crate) fn report<T: DeserializeOwned>(self) -> Result<T> {
        let Launch {
            program,
            mut command,
            netns,
        } = self;
        let output = command.output().with_context(|| format!("run {program}"))?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            bail!("{netns}: {program}: {}: {}", output.status, problem.trim_end());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("{program}: {text}"))
    }
}
