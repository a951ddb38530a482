//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Weir's operator: plans what each node's agent is to do, and tells what became of policies and configs.
#[derive(Debug, Clone, Parser)]
#[command(version, max_term_width = 100, args_override_self = true)]
pub struct Arguments {
    /// Configuration of the client. Without it: that of the cluster that the operator runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace with the Leases of the operator and of the agents.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "weir-system",
        value_name = "NAME"
    )]
    pub namespace: String,
    /// The name of this replica, which no other one has.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: String,
    /// Where metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:9963", value_name = "ADDRESS:PORT")]
    pub metrics_address: SocketAddr,
    /// What the operator logs about itself, as a filter of the `tracing` crate.
    #[arg(long, env = "WEIR_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Log as JSON, one object a line.
    #[arg(long)]
    pub log_json: bool,
}
