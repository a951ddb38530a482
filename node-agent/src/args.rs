//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Weir's node agent: routes Services, enforces network policy and logs every decision, in the kernel.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// What the agent logs about itself, as a filter of the `tracing` crate.
    #[arg(
        long,
        global = true,
        env = "WEIR_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// Log as JSON, one object a line.
    #[arg(long, global = true)]
    pub log_json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run without a cluster: objects come from YAML files, pods are network namespaces.
    Standalone(Box<Standalone>),
    /// Detach everything of Weir's from this node's kernel and remove its maps. Traffic is no longer restricted.
    Remove(Place),
}

/// Where an agent keeps its things.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Directory on a BPF file system for maps and links; one is mounted there if there is none.
    #[arg(long, default_value = "/sys/fs/bpf/weir", value_name = "DIR")]
    pub bpffs: PathBuf,
    /// Directory for the lock that keeps two agents from running at once.
    #[arg(long, default_value = "/run/weir", value_name = "DIR")]
    pub state_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct Standalone {
    #[command(flatten)]
    pub place: Place,
    /// Directory with the manifests. A change takes effect at once.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Name of this node, as pods name it in `spec.nodeName`.
    #[arg(long, default_value = "standalone", value_name = "NAME")]
    pub node_name: String,
    /// cgroup2 directory whose processes reach Services by socket.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Interface to the world outside; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub uplink: Vec<String>,
    /// MTU of the pods' interfaces, in bytes.
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    pub mtu: u32,
    /// File of the policy log, in place of the one that a FlowLogPolicy names.
    #[arg(long, value_name = "FILE")]
    pub flow_log: Option<PathBuf>,
    /// Where metrics and health are served.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS:PORT")]
    pub metrics_address: SocketAddr,
    /// File that is written when the kernel holds what the manifests say for the first time.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Entries of each of the two flow tables (IPv4 and IPv6).
    #[arg(long, default_value_t = 131_072, value_name = "ENTRIES", value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub flows: u32,
    /// Attach by clsact filters even where the kernel has tcx.
    #[arg(long)]
    pub clsact: bool,
}
