//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use weir_e2e::plan::{ClusterName, Family};
use weir_e2e::recipes::Group;
use weir_e2e::upstream;

#[derive(Debug, Parser)]
#[command(name = "weir-e2e", about = "A Kubernetes cluster on this machine")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Build what clusters are made of, without starting any
    Build(Build),
    /// Run an API server without nodes, until interrupted; prints the path of its kubeconfig
    Apiserver(Apiserver),
    /// Start a cluster, and install Weir in it
    Up(Up),
    /// End a cluster, or what is left of one
    Down(Named),
    /// Say what runs
    Status,
    /// Install Weir, or bring it up to date, in a cluster that runs
    Install(Install),
    /// Run kubectl as administrator of a cluster
    Kubectl(Kubectl),
    /// Run a program on a node
    Exec(Exec),
    /// Run specs of Kubernetes' own end-to-end tests against a cluster
    Upstream(Upstream),
    /// End a node as if its power had failed, and start it again
    Reboot(Reboot),
    /// Make the seed of a node's container runtime (run by `up`)
    #[command(hide = true)]
    MakeSeed { archives: Vec<PathBuf> },
    /// Start a node in namespaces (run by `up`)
    #[command(hide = true)]
    NodeEnter { spec: PathBuf },
    /// Be the first process of a node (run by `node-enter`)
    #[command(hide = true)]
    NodeInit { spec: PathBuf },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Which cluster: several can run side by side
    #[arg(long, default_value = "local")]
    pub(crate) name: ClusterName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) cluster: Named,
    /// How many nodes, 2 to 6; they are spread over three zones
    #[arg(long, default_value_t = 2)]
    pub(crate) nodes: u8,
    /// Which addresses nodes, pods and Services have
    #[arg(long, value_enum, default_value = "dual")]
    pub(crate) ip_family: FamilyName,
    /// Leave the nodes without a network, so that they do not get ready
    #[arg(long)]
    pub(crate) without_weir: bool,
    #[command(flatten)]
    pub(crate) weir: Weir,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Weir {
    /// Folder of the archives of Weir's images
    #[arg(long, value_name = "DIR", default_value = "target/images")]
    pub(crate) images: PathBuf,
    /// Folder of Weir's manifests, for kustomize
    #[arg(long, value_name = "DIR", default_value = "config/default")]
    pub(crate) manifests: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) cluster: Named,
    #[command(flatten)]
    pub(crate) weir: Weir,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Kubectl {
    #[command(flatten)]
    pub(crate) cluster: Named,
    /// Arguments for kubectl, after `--`
    #[arg(last = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) cluster: Named,
    /// Such as `node1`; `control-plane` for the network outside of all nodes
    pub(crate) node: String,
    /// The program and its arguments, after `--`
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Upstream {
    #[command(flatten)]
    pub(crate) cluster: Named,
    #[arg(value_enum)]
    pub(crate) group: UpstreamGroup,
    /// Only specs whose names hold this text; several are allowed
    #[arg(long, value_name = "TEXT")]
    pub(crate) focus: Vec<String>,
    /// How many specs run at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) procs: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum UpstreamGroup {
    /// NetworkPolicy
    Netpol,
    /// From pod to pod, and from node to pod
    Network,
    /// What a conformant cluster passes, of the pod network
    Conformance,
}

impl From<UpstreamGroup> for &'static upstream::Group {
    fn from(name: UpstreamGroup) -> Self {
        match name {
            UpstreamGroup::Netpol => &upstream::NETPOL,
            UpstreamGroup::Network => &upstream::NETWORK,
            UpstreamGroup::Conformance => &upstream::CONFORMANCE,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reboot {
    #[command(flatten)]
    pub(crate) cluster: Named,
    /// Such as `node1`
    pub(crate) node: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FamilyName {
    Ipv4,
    Ipv6,
    Dual,
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::Ipv4 => Self::Ipv4,
            FamilyName::Ipv6 => Self::Ipv6,
            FamilyName::Dual => Self::Dual,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// What to build
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cluster")]
    pub(crate) group: Vec<GroupName>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum GroupName {
    Apiserver,
    Cluster,
    /// Upstream's end-to-end tests
    Upstream,
    /// The Service proxy that Weir replaces
    KubeProxy,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apiserver {
    /// Where its files go; what is stored there from an earlier run is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
}

impl From<GroupName> for Group {
    fn from(name: GroupName) -> Self {
        match name {
            GroupName::Apiserver => Self::ApiServer,
            GroupName::Cluster => Self::Cluster,
            GroupName::Upstream => Self::Upstream,
            GroupName::KubeProxy => Self::KubeProxy,
        }
    }
}
