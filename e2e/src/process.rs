//! Starts other programs, and ends those that were started.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of a log that go into an error.
const TAIL: usize = 20;

/// How often a condition that is waited for is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or exits with anything but 0. The error names it and cites what it said.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// What a command prints on its standard output.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("starting `{}`", words(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            words(command),
            output.status,
            said.trim_end()
        );
    }
    Ok(output.stdout)
}

/// Makes a command write both streams to the end of a file, and read nothing.
///
/// # Errors
/// The file cannot be opened.
pub fn log_to<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command> {
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))
    };
    Ok(command.stdin(Stdio::null()).stdout(open()?).stderr(open()?))
}

/// Waits until `done` answers `Some`.
///
/// # Errors
/// It does not within the time; the error names what was waited for. Or it fails.
pub fn wait_for<T>(what: &str, patience: Duration, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = done()? {
            return Ok(answer);
        }
        if start.elapsed() > patience {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        sleep(INTERVAL);
    }
}

/// The last lines of a log, for an error message.
#[must_use]
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(TAIL);
    format!("the end of {}:\n{}", log.display(), lines[last..].join("\n"))
}

/// The command as a person would read it.
#[must_use]
pub fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A process on record, told from a later one that was given the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pid: i32,
    /// Since boot, in clock ticks.
    started: u64,
}

impl Recorded {
    /// The process of that number, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid: pid.try_into().ok()?,
            started: started(pid)?,
        })
    }

    /// What a file says; `None` when there is no such file, or something else is in it.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, started) = text.trim_end().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        crate::places::write(file, format!("{} {}\n", self.pid, self.started))
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        u32::try_from(self.pid).is_ok_and(|pid| started(pid) == Some(self.started))
    }

    /// Sends it a signal, if it lives, and waits for its end.
    ///
    /// # Errors
    /// It may not be signalled, or lives on.
    pub fn end(&self, signal: Signal, patience: Duration) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("ending process {}", self.pid)),
        }
        let what = format!("the end of process {}", self.pid);
        wait_for(&what, patience, || Ok((!self.is_alive()).then_some(())))
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second field is a name in parentheses and may hold anything. A zombie
/// has ended.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    start_time(&stat)
}

fn start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_when_a_process_started() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 13 14\n";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time(&stat.replace(" S ", " Z ")), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn a_record_is_of_one_process() {
        let this = Recorded::of(std::process::id()).expect("this process lives");
        assert!(this.is_alive());
        let earlier = Recorded {
            started: this.started + 1,
            ..this.clone()
        };
        assert!(!earlier.is_alive());
        let directory = tempfile::tempdir().expect("a temporary folder");
        let file = directory.path().join("pid");
        this.write(&file).expect("written");
        assert_eq!(Recorded::read(&file), Some(this));
        assert_eq!(Recorded::read(&directory.path().join("none")), None);
    }
}
