//! Everything that policy depends on, as one sorted value.
//!
//! The same objects give the same snapshot, in whatever order they were inserted. The fields are public: whoever
//! fills them keeps what the API server guarantees, and what it does not is dealt with where it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde::{Deserialize, Serialize};
use weir_api::{ClusterNetworkPolicySpec, FlowLogPolicySpec};

use crate::model::Protocol;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// The label that the API server puts on each namespace (Kubernetes 1.22, KEP-2161). Its value is the name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The labels of each namespace. Read them with [`Snapshot::namespace_label`].
    pub namespaces: BTreeMap<String, Labels>,
    pub pods: BTreeMap<PodId, Pod>,
    pub nodes: BTreeMap<String, Node>,
    pub network_policies: BTreeMap<ObjectName, NetworkPolicy>,
    pub cluster_network_policies: BTreeMap<String, ClusterNetworkPolicy>,
    pub flow_log_policies: BTreeMap<String, FlowLogPolicySpec>,
}

/// The name of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// Which pod.
pub type PodId = ObjectName;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub labels: Labels,
    /// Empty while the pod is not scheduled.
    pub node: String,
    /// `status.podIPs`. Those of a host-network pod are its node's.
    pub addresses: Vec<IpAddr>,
    /// Such a pod is neither subject nor peer of a policy, but for CIDRs.
    pub host_network: bool,
    /// The container ports that have a name, of all containers.
    pub named_ports: Vec<NamedPort>,
    /// In phase Succeeded or Failed: its addresses may belong to another pod.
    pub terminated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub labels: Labels,
    /// The addresses of `status.addresses` that are IP addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkPolicy {
    pub annotations: Labels,
    pub spec: NetworkPolicySpec,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClusterNetworkPolicy {
    pub annotations: Labels,
    pub spec: ClusterNetworkPolicySpec,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Snapshot {
    /// A label of a namespace. A namespace that the snapshot lacks has only the label with its name.
    #[must_use]
    pub fn namespace_label<'a>(&'a self, namespace: &'a str, key: &str) -> Option<&'a str> {
        if key == NAMESPACE_NAME_LABEL {
            return Some(namespace);
        }
        self.namespaces.get(namespace)?.get(key).map(String::as_str)
    }
}

impl Pod {
    /// Whether policies see this pod as a pod.
    #[must_use]
    pub fn is_on_pod_network(&self) -> bool {
        !self.host_network && !self.terminated
    }
}

impl From<&core::Pod> for Pod {
    /// Copies out what policy looks at. Ports without a name or beyond 1..=65535 and addresses that are none are left
    /// out: the API server admits neither.
    fn from(pod: &core::Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        Self {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            addresses: status.map(pod_addresses).unwrap_or_default(),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
            named_ports: spec.map(named_ports).unwrap_or_default(),
            terminated: matches!(phase, Some("Succeeded" | "Failed")),
        }
    }
}

/// `podIPs`, or `podIP` where only that is set.
fn pod_addresses(status: &core::PodStatus) -> Vec<IpAddr> {
    let listed: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|address| address.ip.parse().ok())
        .collect();
    if listed.is_empty() {
        status
            .pod_ip
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect()
    } else {
        listed
    }
}

/// Of the containers and of the init containers, whose sidecars go on running.
fn named_ports(spec: &core::PodSpec) -> Vec<NamedPort> {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(named_port)
        .collect()
}

fn named_port(port: &core::ContainerPort) -> Option<NamedPort> {
    Some(NamedPort {
        name: port.name.clone()?,
        protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
        port: u16::try_from(port.container_port)
            .ok()
            .filter(|&port| port != 0)?,
    })
}

impl From<&core::Node> for Node {
    fn from(node: &core::Node) -> Self {
        let addresses = node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten());
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: addresses
                .filter_map(|address| address.address.parse().ok())
                .collect(),
        }
    }
}
