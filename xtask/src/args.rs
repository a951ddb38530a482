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
    /// Write the CustomResourceDefinitions of the API types to crds/ and into the chart
    Crdgen(Crdgen),
    /// Write what the chart makes by default to config/default (compiles Helm once, with Go)
    Manifests(Manifests),
    /// Make the container images of the agent and the operator
    Images(Images),
    /// Check what the compiler does not: dependency edges, purity, names, sizes, leaks, licences
    Tidy,
    /// Set up, build and run the demo (needs root: uses sudo otherwise)
    Demo(PassedOn),
    /// Set up and run every check and test (kernel tests need root: uses sudo otherwise)
    Test(Test),
    /// Run the programs and the demo on older kernels, in emulated machines (fetches Debian's kernels once)
    Vmtest(Vmtest),
    /// Set up, build and run the benchmarks (needs root: uses sudo otherwise)
    Bench(PassedOn),
    /// Start, end or look at a Kubernetes cluster on this machine (needs root: uses sudo otherwise)
    Cluster(Cluster),
    /// Run kubectl as administrator of the local cluster
    Kubectl(Kubectl),
    /// Set up and run the tests that only a cluster can show (need root: uses sudo otherwise)
    E2e(PassedOn),
    /// Run Kubernetes' own end-to-end tests against the cluster that runs: netpol, network or conformance, --focus,
    /// --procs (needs root: uses sudo otherwise)
    Upstream(Options),
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
pub(crate) struct Crdgen {
    /// Write nothing; fail when a file differs
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Manifests {
    /// Write nothing; fail when the file differs
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Where the archives go, instead of target/images
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The tag of the images, beside the version
    #[arg(long, default_value = "dev")]
    pub(crate) tag: String,
    /// The target to build for, instead of this machine's
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,
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
pub(crate) struct Vmtest {
    /// These kernels only, separated by commas: 5.10, 6.1, 6.12
    #[arg(long, value_delimiter = ',')]
    pub(crate) kernel: Vec<String>,
    /// The agent's tests of packets and of attaching too: some minutes for each kernel
    #[arg(long)]
    pub(crate) packets: bool,
    /// Fetch the kernels again, as they are in Debian today
    #[arg(long)]
    pub(crate) update: bool,
    /// Where Debian's packages are, instead of where this machine's apt takes them from; once for the archive and once
    /// for its security updates
    #[arg(long, value_name = "URI")]
    pub(crate) mirror: Vec<String>,
    /// How long one machine may run
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    pub(crate) task: ClusterTask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterTask {
    /// Build what is missing, start a cluster, and install Weir: --nodes, --ip-family, --name, --without-weir
    Up(Options),
    /// Install Weir as it is in this checkout into the cluster that runs: --name
    Install(Options),
    /// End a cluster; nothing of it stays but its logs: --name
    Down(Options),
    /// Say what runs
    Status,
    /// Build without starting anything: --group cluster,upstream,kube-proxy
    Build(Options),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Options of the same task of weir-e2e
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Kubectl {
    /// Which cluster
    #[arg(long, default_value = "local")]
    pub(crate) name: String,
    /// Arguments for kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CleanUp {
    /// List only
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// End the clusters that run, too
    #[arg(long)]
    pub(crate) clusters: bool,
}
