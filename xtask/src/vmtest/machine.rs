//! One emulated machine, from its start to its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::report::MARK;
use crate::process;

/// Enough for the default sizes of all maps, and the archive.
const MEGABYTES: &str = "1536";

/// No entropy but the processor's; nothing that keeps up an emulated one.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on mitigations=off PATH=/bin:/weir";

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) image: PathBuf,
    pub(super) archive: PathBuf,
    /// Everything that the console says.
    pub(super) log: PathBuf,
    pub(super) patience: Duration,
}

impl Machine {
    /// What its console said, up to its end or the end of the patience.
    pub(super) fn run(&self) -> Result<Vec<String>> {
        let mut command = self.command();
        println!("$ {}", process::words(&command));
        let mut child = Ended(command.spawn().context("starting qemu-system-x86_64")?);
        let output = child.0.stdout.take().context("the console")?;
        let (say, said) = channel();
        thread::spawn(move || read(output, &say));
        let mut log = File::create(&self.log).with_context(|| self.log.display().to_string())?;
        let start = Instant::now();
        let mut lines = Vec::new();
        loop {
            match said.recv_timeout(self.patience.saturating_sub(start.elapsed())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    if let Some(news) = news(&line) {
                        println!("{:>6.1} s  {news}", start.elapsed().as_secs_f64());
                    }
                    lines.push(line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    println!("no end after {} s", self.patience.as_secs());
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(lines)
    }

    /// Emulated, and not by KVM: it is there on every machine, and in virtual ones that offer a broken KVM, too.
    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                MEGABYTES,
            ])
            .args(["-nic", "none", "-nographic", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.archive)
            .args(["-append", KERNEL_ARGUMENTS])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }
}

/// What of a line is worth showing while it runs: not each of the programs.
fn news(line: &str) -> Option<&str> {
    let told = line.strip_prefix(MARK)?;
    (!told.starts_with("program ")).then_some(told)
}

/// Lines without the serial console's returns.
fn read(output: impl std::io::Read, say: &Sender<String>) {
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).replace('\r', "");
        if say.send(line).is_err() {
            return;
        }
    }
}

/// A child that does not outlive us, whatever happens.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
