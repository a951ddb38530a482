//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::network::PortRange;

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
    /// Run as the agent of a node of a Kubernetes cluster.
    Run(Box<Run>),
    /// Run without a cluster: objects come from YAML files, pods are network namespaces.
    Standalone(Box<Standalone>),
    /// Take everything of Weir's out of this node: programs, maps, routes, tunnel, the CNI plugin and what it left.
    /// Traffic is no longer restricted, and pods no longer reach those of other nodes.
    Remove(Remove),
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
pub struct Remove {
    #[command(flatten)]
    pub place: Place,
    /// Directory of what was given to pods.
    #[arg(long, value_name = "DIR")]
    pub cni_state_dir: Option<PathBuf>,
    /// Directory to take the CNI plugin from.
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory to take the network configuration from.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct Run {
    #[command(flatten)]
    pub place: Place,
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// How to reach the API server; without it, as a pod does.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the agent's Lease.
    #[arg(long, default_value = "weir-system", value_name = "NAME")]
    pub namespace: String,
    /// cgroup2 directory whose processes reach Services by socket.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Directory for what was given to pods, which must outlive a reboot.
    #[arg(long, default_value = "/var/lib/weir/cni", value_name = "DIR")]
    pub cni_state_dir: PathBuf,
    /// Where the CNI plugin finds the agent.
    #[arg(long, default_value = weir_cni::protocol::DEFAULT_SOCKET, value_name = "SOCKET")]
    pub cni_socket: PathBuf,
    /// The CNI plugin, to be copied to where the container runtime looks for it.
    #[arg(long, default_value = "/usr/bin/weir-cni", value_name = "FILE")]
    pub cni_binary: PathBuf,
    /// Where the container runtime looks for CNI plugins; without it, none is put there.
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where the container runtime looks for its network configuration; without it, none is put there.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// File of the policy log, in place of the one that a FlowLogPolicy names.
    #[arg(long, value_name = "FILE")]
    pub flow_log: Option<PathBuf>,
    /// Where metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:9962", value_name = "ADDRESS:PORT")]
    pub metrics_address: SocketAddr,
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
    /// Let pods speak to the outside by the address of the first uplink.
    #[arg(long, requires = "uplink")]
    pub masquerade: bool,
    /// Destinations that pods speak to as themselves although they are outside; may be repeated. Without it, the
    /// private ranges: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and fc00::/7.
    #[arg(long, value_name = "CIDR")]
    pub non_masquerade_cidr: Vec<IpNet>,
    /// Ports of the node that those connections get. The node's own sockets are given none of them.
    #[arg(long, default_value_t, value_name = "FIRST-LAST")]
    pub masquerade_ports: PortRange,
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
