//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::test::Step;

#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "The project's tasks")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Install what building and running needs and this machine lacks
    Setup,
    /// Build the eBPF objects and copy them to target/bpf
    BuildBpf(BuildBpf),
    /// Check what the compiler does not: dependency edges, purity, names, sizes, leaks, licences
    Tidy,
    /// Set up, build and run the demo (needs root: uses sudo otherwise)
    Demo(PassedOn),
    /// Set up and run every check and test (kernel tests need root: uses sudo otherwise)
    Test(Test),
    /// Set up, build and run the benchmarks (needs root: uses sudo otherwise)
    Bench(PassedOn),
    /// List and remove what an interrupted run left on this machine
    CleanUp(CleanUp),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BuildBpf {
    /// Where the objects go, instead of target/bpf
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PassedOn {
    /// Arguments for the program itself, after `--`
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Run these steps only, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "skip")]
    pub(crate) only: Vec<Step>,
    /// Leave these steps out, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) skip: Vec<Step>,
    /// How long each fuzz target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) fuzz_seconds: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CleanUp {
    /// List only
    #[arg(long)]
    pub(crate) dry_run: bool,
}
