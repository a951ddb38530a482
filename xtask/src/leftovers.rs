//! What of ours is on this machine beside the checkout: processes, mounts, namespaces, links, cgroups, run-time
//! directories. All that the tests, the demo and the benchmarks make carries the prefix.

mod clusters;
mod find;
mod remove;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::args::CleanUp;
use crate::checkout::Checkout;
use crate::cluster;
pub(crate) use find::find;

/// Begins the name of everything that we make.
const PREFIX: &str = "weir";

/// How long the kernel may take to carry out what it was told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ordered so that, from last to first, each can be removed once those after it are gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leftover {
    /// Below `/run`.
    Directory(PathBuf),
    Cgroup(PathBuf),
    /// In the network namespace that we run in.
    Link(String),
    /// By its name under `/run/netns`.
    Namespace(String),
    Mount(PathBuf),
    /// Started from this checkout, or living in a namespace of ours.
    Process {
        pid: u32,
        program: String,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Namespace(name) => write!(f, "network namespace {name}"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Process { pid, program } => write!(f, "process {pid} ({program})"),
        }
    }
}

pub(crate) fn run(checkout: &Checkout, options: &CleanUp) -> Result<()> {
    for name in find::clusters()? {
        if options.clusters && !options.dry_run {
            cluster::down(checkout, &name)?;
        } else {
            println!(
                "cluster {name} runs and is left alone: `cargo xtask cluster down --name {name}` ends it, \
                 `clean-up --clusters` all that run"
            );
        }
    }
    let found = find(checkout)?;
    for leftover in &found {
        println!("{leftover}");
    }
    if found.is_empty() {
        println!("nothing of ours is left on this machine");
    }
    if found.is_empty() || options.dry_run {
        return Ok(());
    }
    if let Some(pid) = find::foreign_agent(checkout)? {
        bail!(
            "process {pid} is a weir-agent that was not built here: this machine runs Weir, nothing is removed"
        );
    }
    let in_use = find::testbeds_in_use()?;
    if !in_use.is_empty() {
        bail!(
            "in use by a test, the demo or a benchmark that runs at this moment: {}",
            in_use.join(", ")
        );
    }
    // Each may take others with it: a namespace its links, a link its peer.
    for leftover in found.iter().rev() {
        remove::remove(leftover)?;
    }
    let rest = settled(checkout, &BTreeSet::new())?;
    if !rest.is_empty() {
        bail!("still there: {}", list(&rest));
    }
    println!("all removed");
    Ok(())
}

/// Fails, naming them, when things of ours are there that were not there before.
pub(crate) fn none_new(checkout: &Checkout, before: &BTreeSet<Leftover>) -> Result<()> {
    let new = settled(checkout, before)?;
    if !new.is_empty() {
        bail!("{}", list(&new));
    }
    Ok(())
}

/// What is there beside what is known, once the kernel is done with what was taken away: it removes a namespace's
/// links, and the links' peers, in the background.
fn settled(checkout: &Checkout, known: &BTreeSet<Leftover>) -> Result<BTreeSet<Leftover>> {
    let start = Instant::now();
    loop {
        let rest: BTreeSet<_> = find(checkout)?.difference(known).cloned().collect();
        if rest.is_empty() || start.elapsed() > PATIENCE {
            return Ok(rest);
        }
        sleep(Duration::from_millis(50));
    }
}

fn list(leftovers: &BTreeSet<Leftover>) -> String {
    leftovers
        .iter()
        .map(Leftover::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
