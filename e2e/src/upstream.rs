//! Upstream's own tests: specs of Kubernetes' unmodified end-to-end test program, run against a cluster from outside of
//! its nodes, and what became of each.

mod ginkgo_output;
mod report;
mod specs;
mod table;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::build;
use crate::cluster::Cluster;
use crate::places;
use crate::process;
use crate::progress::Progress;
use crate::recipes::{self, E2E_TEST, GINKGO, KUBECTL};

use ginkgo_output::GinkgoOutput;
use report::Report;
pub use specs::{CONFORMANCE, Exclusion, Group, NETPOL, NETWORK};
use specs::{Selection, listed};
pub use table::Table;

/// How ginkgo, its programs and their files are named in the folder of a run.
const JSON: &str = "report.json";
const JUNIT: &str = "junit.xml";
const LOG: &str = "ginkgo.log";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub group: &'static Group,
    /// Only specs whose names hold one of these texts; all of the group when there are none.
    pub focus: Vec<String>,
    /// Specs that run at the same time, each by a process of its own.
    pub processes: u8,
}

/// Runs specs to their end. The JSON and JUnit reports, and the log, stay beside the logs of the cluster.
///
/// # Errors
/// No spec is of that description; ginkgo does not start, or leaves no report. A spec that fails is no error: the table
/// tells.
pub fn run(cluster: &Cluster, options: &Options, progress: Progress) -> Result<Table> {
    build::ensure(&[recipes::Group::Cluster, recipes::Group::Upstream], progress)?;
    let selection = select(options)?;
    progress.say(format_args!(
        "{} specs of {}, {} at a time; {} are left out",
        selection.chosen.len(),
        options.group.name,
        options.processes,
        selection.excluded.len()
    ));
    let folder = fresh_folder(cluster, options.group)?;
    let mut ginkgo = ginkgo(cluster, options, &selection, &folder)?;
    let success = follow(&mut ginkgo, &folder.join(LOG), selection.chosen.len(), progress)?;
    progress.say(format_args!("reports and log: {}", folder.display()));
    let report = Report::read(&folder.join(JSON)).with_context(|| process::tail(&folder.join(LOG)))?;
    let table = Table::new(&selection, &report);
    ensure!(
        success || table.has_failures(),
        "ginkgo failed, and no spec did; {}",
        process::tail(&folder.join(LOG))
    );
    Ok(table)
}

fn select(options: &Options) -> Result<Selection> {
    let mut list = Command::new(build::path(&E2E_TEST)?);
    let output = process::output(list.arg("--list-tests"))?;
    let output = String::from_utf8_lossy(&output);
    let names = listed(&output);
    let selection = Selection::of(&names, options.group, &options.focus);
    if selection.chosen.is_empty() {
        bail!(
            "no spec of {} is left to run; those left out: {:?}",
            options.group.name,
            selection.excluded
        );
    }
    Ok(selection)
}

fn fresh_folder(cluster: &Cluster, group: &Group) -> Result<PathBuf> {
    let folder = cluster.logs().join("upstream").join(group.name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    places::create_dir(&folder, 0o755)?;
    Ok(folder)
}

fn ginkgo(cluster: &Cluster, options: &Options, selection: &Selection, folder: &Path) -> Result<Command> {
    let mut command = cluster.in_control_plane(build::path(&GINKGO)?);
    command
        .current_dir(folder)
        .arg(format!("--procs={}", options.processes))
        .args(["-v", "--no-color", "--silence-skips", "--timeout=4h"])
        .arg(format!("--output-dir={}", folder.display()))
        .arg(format!("--json-report={JSON}"))
        .arg(format!("--junit-report={JUNIT}"))
        .args(selection.focuses())
        .arg(build::path(&E2E_TEST)?)
        .arg("--")
        .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
        .arg(format!("--kubectl-path={}", build::path(&KUBECTL)?.display()))
        .arg(format!("--num-nodes={}", cluster.nodes().len()))
        .args(["--provider=skeleton", "--node-os-distro=custom"])
        .args(["--disable-log-dump", "--dump-logs-on-failure=false"])
        .args([
            "--system-pods-startup-timeout=2m",
            "--node-schedulable-timeout=2m",
        ]);
    Ok(command)
}

/// Runs ginkgo to its end, and says what ends meanwhile. Whether ginkgo is content.
fn follow(ginkgo: &mut Command, log: &Path, specs: usize, progress: Progress) -> Result<bool> {
    let mut file = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let errors = file
        .try_clone()
        .with_context(|| format!("opening {}", log.display()))?;
    let mut child = ginkgo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .with_context(|| format!("starting `{}`", process::words(ginkgo)))?;
    let stdout = child.stdout.take().context("ginkgo's standard output")?;
    let mut output = GinkgoOutput::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("reading what ginkgo says")?;
        file.write_all(&line)
            .and_then(|()| file.write_all(b"\n"))
            .with_context(|| format!("writing {}", log.display()))?;
        if let Some(ended) = output.take(&String::from_utf8_lossy(&line)) {
            progress.say(format_args!("{} of {specs}: {ended}", output.ended()));
        }
    }
    let status = child.wait().context("waiting for ginkgo")?;
    Ok(status.success())
}
