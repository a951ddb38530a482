//! A running program that ends with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of a log that go into an error.
const TAIL: usize = 40;

/// A child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a command as it is set up.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Process> {
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Process {
            name: name.into(),
            child,
            log: None,
        })
    }

    /// Starts a command whose output, both streams, is added to a file.
    pub fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .with_context(|| log.display().to_string())
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let mut process = Process::spawn(name, command)?;
        process.log = Some(log.into());
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, to reach its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("look after {}", self.name))
    }

    /// `SIGKILL`, and waits for its end.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// `SIGTERM`; an error if it does not end in time.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)
                .with_context(|| format!("end {}", self.name))?;
        }
        self.wait(patience)
    }

    /// An error if it does not end in time.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > patience {
                bail!("{} did not end within {patience:?}; {}", self.name, self.tail());
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// The last lines of the log, for an error message.
    pub fn tail(&self) -> String {
        let Some(log) = &self.log else {
            return String::new();
        };
        let bytes = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(TAIL);
        format!("the end of {}:\n{}", log.display(), lines[last..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
