//! Which process a testbed belongs to.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: &str = "owner";

/// A process, told from a later one that was given the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// Since boot, in clock ticks.
    started: u64,
}

impl Owner {
    /// The calling process.
    pub(crate) fn this() -> Result<Owner> {
        let pid = std::process::id();
        let started = started(pid)?.context("this process is not in /proc")?;
        Ok(Owner { pid, started })
    }

    /// The owner on record in a testbed's directory, if that is what it is.
    pub(crate) fn recorded(directory: &Path) -> Option<Owner> {
        let record = fs::read_to_string(directory.join(FILE)).ok()?;
        let (pid, started) = record.trim_end().split_once(' ')?;
        Some(Owner {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    pub(crate) fn record(&self, directory: &Path) -> Result<()> {
        let file = directory.join(FILE);
        fs::write(&file, format!("{} {}\n", self.pid, self.started))
            .with_context(|| file.display().to_string())
    }

    pub(crate) fn is_alive(&self) -> Result<bool> {
        Ok(started(self.pid)? == Some(self.started))
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second field is a name in parentheses and may hold anything.
fn started(pid: u32) -> Result<Option<u64>> {
    let file = format!("/proc/{pid}/stat");
    let stat = match fs::read_to_string(&file) {
        Ok(stat) => stat,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).context(file),
    };
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    let started = after_name
        .and_then(|rest| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok());
    started
        .with_context(|| format!("{file}: no start time"))
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_of_its_number_is_not() {
        let this = Owner::this().expect("an owner");
        assert!(this.is_alive().expect("a state"));
        let other = Owner {
            started: this.started + 1,
            ..this
        };
        assert!(!other.is_alive().expect("a state"));
    }

    #[test]
    fn a_record_is_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(Owner::recorded(directory.path()), None);
        let owner = Owner {
            pid: 12,
            started: 345,
        };
        owner.record(directory.path()).expect("a record");
        assert_eq!(Owner::recorded(directory.path()), Some(owner));
    }
}
