//! What the figures were measured on; nothing that says whose machine it is.

use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Version of the running kernel: its release without what the packager put behind.
    pub kernel: String,
    /// Model name.
    pub cpu: String,
    pub cpus: usize,
    /// Mean number of processes that wanted to run, over the minute before.
    pub load: f64,
    /// RFC 3339, UTC.
    pub time: String,
}

impl Machine {
    pub(crate) fn of_this() -> Result<Machine> {
        let kernel = version(&read("/proc/sys/kernel/osrelease")?).to_owned();
        let cpu = model_name(&read("/proc/cpuinfo")?)
            .unwrap_or("unknown")
            .to_owned();
        let load = read("/proc/loadavg")?;
        let load = load.split(' ').next().and_then(|minute| minute.parse().ok());
        Ok(Machine {
            kernel,
            cpu,
            cpus: available_parallelism().context("count CPUs")?.get(),
            load: load.context("/proc/loadavg")?,
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    }

    /// Above one runnable process other than ours, figures mean little.
    pub(crate) fn is_busy(&self) -> bool {
        self.load > 1.0
    }

    /// `KERNEL-DATE.jsonl`.
    pub(crate) fn file_name(&self) -> String {
        let date = self.time.split('T').next().unwrap_or_default();
        format!("{}-{date}.jsonl", self.kernel)
    }
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).context(file.to_owned())
}

/// Some packagers name more than a version there.
fn version(release: &str) -> &str {
    let end = release
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(release.len());
    &release[..end]
}

/// x86 has the field; others call it differently or leave it out.
fn model_name(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_name_is_found() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: A\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: B\n";
        assert_eq!(model_name(cpuinfo), Some("A CPU @ 2 GHz"));
        assert_eq!(model_name("processor : 0\n"), None);
    }

    #[test]
    fn a_version_ends_where_the_packager_begins() {
        assert_eq!(version("6.18.44-custom-1\n"), "6.18.44");
        assert_eq!(version("6.18\n"), "6.18");
        assert_eq!(version("6.19.0"), "6.19.0");
    }

    #[test]
    fn a_file_is_named_after_kernel_and_day() {
        let machine = Machine {
            kernel: "6.18.44".to_owned(),
            cpu: String::new(),
            cpus: 2,
            load: 0.0,
            time: "2026-11-24T15:00:00Z".to_owned(),
        };
        assert_eq!(machine.file_name(), "6.18.44-2026-11-24.jsonl");
    }
}
