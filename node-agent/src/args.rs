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
    /// Mount a BPF file system on the node from within a pod, unless there is one.
    MountBpffs(MountBpffs),
    /// Take everything of Weir's out of this node: programs, maps, routes, tunnel, the CNI plugin and what it left.
    /// Traffic is no longer restricted, and pods no longer reach those of other nodes. Pods that run keep their
    /// interfaces, and what is on record of them, so that an agent to come finds them.
    Remove(Remove),
}

#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct MountBpffs {
    /// The node's `/proc`, by whose process 1 its mounts are known.
    #[arg(long, default_value = "/proc", value_name = "DIR")]
    pub host_proc: PathBuf,
    /// Where on the node.
    #[arg(long, default_value = "/sys/fs/bpf", value_name = "DIR")]
    pub host_bpffs: PathBuf,
}

/// Where an agent keeps its things.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Place {
    /// Directory on a BPF file system for maps and links. Where it is on none, the agent of a cluster does not start,
    /// and one without a cluster mounts one.
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
    /// Where the CNI plugin found the agent.
    #[arg(long, value_name = "SOCKET")]
    pub cni_socket: Option<PathBuf>,
    /// The node's `/proc`: to take away, in the node's mounts, the BPF file system that `mount-bpffs` has mounted.
    #[arg(long, requires = "host_bpffs", value_name = "DIR")]
    pub host_proc: Option<PathBuf>,
    /// Where on the node that was.
    #[arg(long, requires = "host_proc", value_name = "DIR")]
    pub host_bpffs: Option<PathBuf>,
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
    /// Directory of the node's control groups: those processes reach Services by socket that are in it, or, where it is
    /// on no cgroup2, in the cgroup2 that is mounted below.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;
    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;

    /// Containers of the agent's image in the manifests that people install with.
    fn containers(manifest: &str) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../config")
            .join(manifest);
        let text = std::fs::read_to_string(&path).expect("the manifest");
        let objects = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|object| Value::deserialize(object).expect("YAML"));
        let mut containers = Vec::new();
        for object in objects {
            for list in ["initContainers", "containers"] {
                let list = object.pointer(&format!("/spec/template/spec/{list}"));
                containers.extend(list.and_then(Value::as_array).into_iter().flatten().cloned());
            }
        }
        containers.retain(|container| text_of(&container["image"]).starts_with("weir/agent:"));
        containers
    }

    fn text_of(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }

    fn names(list: &Value, field: &str) -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|entry| text_of(&entry[field]).to_owned()).collect()
    }

    /// The arguments as the kubelet gives them, every variable in them by its name.
    fn arguments(container: &Value) -> Vec<String> {
        let variables = names(&container["env"], "name");
        let arguments = container["args"].as_array().expect("arguments");
        let expanded = arguments.iter().map(|argument| {
            let argument = text_of(argument).to_owned();
            variables
                .iter()
                .fold(argument, |text, name| text.replace(&format!("$({name})"), name))
        });
        expanded.collect()
    }

    fn parse(container: &Value) -> Command {
        let arguments = arguments(container);
        let words = std::iter::once("weir-agent").chain(arguments.iter().map(String::as_str));
        Arguments::try_parse_from(words)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
            .command
    }

    /// Every path among the arguments is one that the container has from the node, but for those that are the node's.
    fn assert_mounted(container: &Value) {
        let mounts = names(&container["volumeMounts"], "mountPath");
        for argument in arguments(container) {
            let Some((name, value)) = argument
                .split_once('=')
                .filter(|(_, value)| value.starts_with('/'))
            else {
                continue;
            };
            let is_mounted = mounts.iter().any(|mount| Path::new(value).starts_with(mount));
            assert!(name == "--host-bpffs" || is_mounted, "{argument}: {mounts:?}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_installed_calls_the_agent_as_it_is() {
        let containers = containers("default/weir.yaml");
        let commands: Vec<Command> = containers.iter().map(parse).collect();
        let [Command::MountBpffs(mount), Command::Run(run)] = commands.as_slice() else {
            panic!("{commands:?}");
        };
        containers.iter().for_each(assert_mounted);
        let of_clap: Vec<String> = Run::augment_args(Arguments::command())
            .get_arguments()
            .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
            .collect();
        let given = names(&containers[1]["env"], "name");
        assert_eq!(of_clap, ["WEIR_LOG", "NODE_NAME"]);
        assert!(of_clap.iter().all(|name| given.contains(name)), "{given:?}");
        assert_eq!(
            (run.node_name.as_str(), run.namespace.as_str()),
            ("NODE_NAME", "POD_NAMESPACE")
        );
        assert!(run.place.bpffs.starts_with(&mount.host_bpffs));
        // Where the plugin looks, as its configuration on the node says.
        assert_eq!(run.cni_socket, Path::new(weir_cni::protocol::DEFAULT_SOCKET));
        assert!(run.cni_bin_dir.is_some() && run.cni_conf_dir.is_some() && run.cgroup.is_some());
    }

    #[test]
    fn what_is_uninstalled_is_what_was_installed() {
        let installed = containers("default/weir.yaml");
        let uninstalled = containers("uninstall/daemonset.yaml");
        let commands: Vec<Command> = installed.iter().chain(&uninstalled).map(parse).collect();
        let [
            Command::MountBpffs(mount),
            Command::Run(run),
            Command::Remove(remove),
        ] = commands.as_slice()
        else {
            panic!("{commands:?}");
        };
        uninstalled.iter().for_each(assert_mounted);
        assert_eq!(remove.place, run.place);
        assert_eq!(remove.cni_state_dir.as_ref(), Some(&run.cni_state_dir));
        assert_eq!(remove.cni_bin_dir, run.cni_bin_dir);
        assert_eq!(remove.cni_conf_dir, run.cni_conf_dir);
        assert_eq!(remove.cni_socket.as_ref(), Some(&run.cni_socket));
        assert_eq!(remove.host_proc.as_ref(), Some(&mount.host_proc));
        assert_eq!(remove.host_bpffs.as_ref(), Some(&mount.host_bpffs));
        // The same folders of the node behind the same paths.
        let mounts = |container: &Value| names(&container["volumeMounts"], "mountPath");
        for mount in mounts(&uninstalled[0]) {
            assert!(
                installed.iter().flat_map(mounts).any(|other| other == mount),
                "{mount}"
            );
        }
    }
}
