//! The objects that are in force, by kind, and what follows from them together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use weir_api::{ClusterNetworkPolicy, FlowLogPolicy};
use weir_policy::snapshot::{self, NAMESPACE_NAME_LABEL, ObjectName, PodId, Snapshot};

use crate::flow::names::{Endpoint, PodName, Workload};
use crate::manifests::history::{Closed, Collection, Stored};
use crate::manifests::object::{Kind, Object, ObjectKey};
use crate::services::ServicePort;

/// On a Pod: path of its network namespace. What a container runtime tells the CNI plugin elsewhere.
pub const NETNS_ANNOTATION: &str = "dataplane.weir.dev/netns";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub pods: BTreeMap<PodId, Arc<Pod>>,
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    pub endpoint_slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    pub network_policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    pub cluster_network_policies: BTreeMap<String, Arc<ClusterNetworkPolicy>>,
    pub flow_log_policies: BTreeMap<String, Arc<FlowLogPolicy>>,
    /// Where each of them stands.
    pub origins: BTreeMap<ObjectKey, Origin>,
    /// Every pod is to be closed: a policy that may be about any of them could not be read.
    pub closed_all: bool,
    /// The pods of these namespaces are to be closed.
    pub closed_namespaces: BTreeSet<String>,
}

/// A place in the manifests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Name of the file within the directory.
    pub file: String,
    /// Place of the YAML document in the file, from 1.
    pub document: usize,
    /// From 1.
    pub line: Option<usize>,
}

/// A pod that is to be connected on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    pub id: PodId,
    /// Absolute.
    pub netns: PathBuf,
    /// At least one, at most one of each family.
    pub addresses: Vec<IpAddr>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => write!(f, ", document {}", self.document),
        }
    }
}

impl Objects {
    pub(crate) fn new(collection: Collection, closed: &Closed) -> Self {
        let mut objects = Self {
            closed_all: closed.all,
            closed_namespaces: closed.namespaces.clone(),
            ..Self::default()
        };
        for (key, Stored { object, origin }) in collection {
            let name = key.name.clone();
            let full_name = ObjectName::new(&key.namespace, &key.name);
            match object {
                Object::Namespace(object) => {
                    objects.namespaces.insert(name, object);
                }
                Object::Node(object) => {
                    objects.nodes.insert(name, object);
                }
                Object::Pod(object) => {
                    objects.pods.insert(full_name, object);
                }
                Object::Service(object) => {
                    objects.services.insert(full_name, object);
                }
                Object::EndpointSlice(object) => {
                    objects.endpoint_slices.insert(full_name, object);
                }
                Object::NetworkPolicy(object) => {
                    objects.network_policies.insert(full_name, object);
                }
                Object::ClusterNetworkPolicy(object) => {
                    objects.cluster_network_policies.insert(name, object);
                }
                Object::FlowLogPolicy(object) => {
                    objects.flow_log_policies.insert(name, object);
                }
            }
            objects.origins.insert(key, origin);
        }
        objects
    }

    /// What policy depends on, seen from this node. A pod that names no node but a network namespace is this node's.
    pub fn snapshot(&self, node_name: &str) -> Snapshot {
        let addresses = self.pod_addresses();
        let pods = self.pods.iter().map(|(id, object)| {
            let mut pod = snapshot::Pod::from(&**object);
            if pod.node.is_empty() && netns(object).is_some() {
                node_name.clone_into(&mut pod.node);
            }
            pod.addresses = addresses.of.get(id).cloned().unwrap_or_default();
            (id.clone(), pod)
        });
        Snapshot {
            namespaces: self
                .namespaces
                .iter()
                .map(|(name, object)| (name.clone(), labels(name, object)))
                .collect(),
            pods: pods.collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(name, node)| (name.clone(), (&**node).into()))
                .collect(),
            network_policies: self
                .network_policies
                .iter()
                .map(|(name, object)| {
                    let annotations = object.metadata.annotations.clone().unwrap_or_default();
                    let spec = object.spec.clone().unwrap_or_default();
                    (name.clone(), snapshot::NetworkPolicy { annotations, spec })
                })
                .collect(),
            cluster_network_policies: self
                .cluster_network_policies
                .iter()
                .map(|(name, object)| {
                    let annotations = object.metadata.annotations.clone().unwrap_or_default();
                    let spec = object.spec.clone();
                    (name.clone(), snapshot::ClusterNetworkPolicy { annotations, spec })
                })
                .collect(),
            flow_log_policies: self
                .flow_log_policies
                .iter()
                .map(|(name, object)| (name.clone(), object.spec.clone()))
                .collect(),
        }
    }

    /// The pods to connect on this node: those with a network namespace that name this node or none.
    pub fn local_pods(&self, node_name: &str) -> Vec<LocalPod> {
        let addresses = self.pod_addresses();
        let mut namespaces = BTreeSet::new();
        let mut local = Vec::new();
        for (id, pod) in &self.pods {
            let (Some(netns), Some(addresses)) = (netns(pod), addresses.of.get(id)) else {
                continue;
            };
            let wanted = is_here(pod, node_name) && netns.is_absolute() && needs_link(pod);
            if wanted && !addresses.is_empty() && namespaces.insert(netns.clone()) {
                local.push(LocalPod {
                    id: id.clone(),
                    netns,
                    addresses: addresses.clone(),
                });
            }
        }
        local
    }

    /// What each address and port of a Service leads to.
    pub fn service_ports(&self) -> Vec<ServicePort> {
        self.services_with_problems().0
    }

    /// Who has which address, by name, for the flow log.
    pub fn endpoints(&self, node_name: &str) -> BTreeMap<IpAddr, Endpoint> {
        let addresses = self.pod_addresses();
        let mut endpoints = BTreeMap::new();
        for (id, pod) in self.pods.iter().filter(|(_, pod)| needs_link(pod)) {
            let name = PodName {
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                workload: workload(pod),
                node_name: assigned_node(pod)
                    .or_else(|| netns(pod).map(|_| node_name))
                    .map(str::to_owned),
            };
            for &address in addresses.of.get(id).into_iter().flatten() {
                endpoints.insert(address, Endpoint::Pod(name.clone()));
            }
        }
        for (name, node) in &self.nodes {
            for address in snapshot::Node::from(&**node).addresses {
                endpoints.insert(address, Endpoint::Node { name: name.clone() });
            }
        }
        endpoints
    }

    /// Whether the pods of a namespace are to be closed.
    pub fn is_closed(&self, namespace: &str) -> bool {
        self.closed_all || self.closed_namespaces.contains(namespace)
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts: BTreeMap<_, _> = Kind::ALL.iter().map(|kind| (kind.word(), 0)).collect();
        for key in self.origins.keys() {
            *counts.entry(key.kind.word()).or_default() += 1;
        }
        counts
    }
}

fn labels(name: &str, namespace: &Namespace) -> snapshot::Labels {
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
    labels
}

pub(super) fn netns(pod: &Pod) -> Option<PathBuf> {
    let path = pod.metadata.annotations.as_ref()?.get(NETNS_ANNOTATION)?;
    Some(PathBuf::from(path))
}

pub(super) fn assigned_node(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

pub(super) fn is_here(pod: &Pod, node_name: &str) -> bool {
    assigned_node(pod).is_none_or(|name| name == node_name)
}

pub(super) fn needs_link(pod: &Pod) -> bool {
    snapshot::Pod::from(pod).is_on_pod_network()
}

fn workload(pod: &Pod) -> Option<Workload> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Workload {
        kind: controller.kind.clone(),
        name: controller.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::history::History;
    use crate::manifests::parse::parse;
    use crate::manifests::problem::ManifestProblem;

    fn objects(text: &str) -> Objects {
        let mut history = History::default();
        let (collection, problems) = history.merge(&[&parse("f.yaml", text)]);
        assert_eq!(problems, vec![]);
        Objects::new(collection, history.closed())
    }

    fn pod(name: &str, rest: &str) -> String {
        format!("---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}{rest}}}\n")
    }

    fn texts(problems: &[ManifestProblem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    fn ids(objects: &Objects) -> Vec<String> {
        objects
            .local_pods("n1")
            .iter()
            .map(|pod| format!("{} {:?}", pod.id.name, pod.addresses))
            .collect()
    }

    const NETNS: &str = "annotations: {dataplane.weir.dev/netns: ";

    #[test]
    fn local_pods_are_those_with_a_network_namespace_and_an_address() {
        let text = [
            pod("here", &format!(", {NETNS}/ns/1}}}}, spec: {{nodeName: n1}}, status: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}]}}")),
            pod("nowhere", &format!(", {NETNS}/ns/2}}}}, status: {{podIP: 10.0.0.2}}")),
            pod("elsewhere", &format!(", {NETNS}/ns/3}}}}, spec: {{nodeName: n2}}, status: {{podIP: 10.0.0.3}}")),
            pod("ended", &format!(", {NETNS}/ns/4}}}}, status: {{phase: Failed, podIP: 10.0.0.1}}")),
            pod("host", &format!(", {NETNS}/ns/5}}}}, spec: {{hostNetwork: true, nodeName: n1}}, status: {{podIP: 192.168.0.1}}")),
            pod("pending", "}"),
            "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}\n".to_owned(),
        ]
        .concat();
        let objects = objects(&text);
        assert_eq!(ids(&objects), ["here [10.0.0.1, fd00::1]", "nowhere [10.0.0.2]"]);
        assert_eq!(
            texts(&objects.problems("n1")),
            [
                "f.yaml:12: document 6: Pod default/pending: status.podIPs: the pod has no address; nothing reaches it (MissingAddress)"
            ]
        );
        let nodes: Vec<_> = objects
            .snapshot("n1")
            .pods
            .into_iter()
            .map(|(id, pod)| (id.name, pod.node))
            .collect();
        let expected = [
            ("elsewhere", "n2"),
            ("ended", "n1"),
            ("here", "n1"),
            ("host", "n1"),
            ("nowhere", "n1"),
            ("pending", ""),
        ];
        assert_eq!(
            nodes,
            expected.map(|(name, node)| (name.to_owned(), node.to_owned()))
        );
        let endpoints: Vec<String> = objects
            .endpoints("n1")
            .iter()
            .map(|(address, endpoint)| match endpoint {
                Endpoint::Pod(pod) => format!("{address} {} {:?}", pod.name, pod.node_name),
                Endpoint::Node { name } => format!("{address} Node {name}"),
            })
            .collect();
        assert_eq!(
            endpoints,
            [
                r#"10.0.0.1 here Some("n1")"#,
                r#"10.0.0.2 nowhere Some("n1")"#,
                r#"10.0.0.3 elsewhere Some("n2")"#,
                "192.168.0.1 Node n1",
                r#"fd00::1 here Some("n1")"#,
            ]
        );
    }

    #[test]
    fn an_address_and_a_network_namespace_have_one_owner() {
        let text = [
            pod("a", &format!(", {NETNS}/ns/1}}}}, status: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}]}}")),
            pod("b", &format!(", {NETNS}/ns/2}}}}, status: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::2'}}]}}")),
            pod("c", &format!(", {NETNS}/ns/1}}}}, status: {{podIP: 10.0.0.3}}")),
            pod("d", &format!(", {NETNS}/ns/4}}}}, status: {{podIP: 192.168.0.1}}")),
            pod("e", &format!(", {NETNS}ns/5}}}}, status: {{podIP: 10.0.0.5}}")),
            pod("f", "}, spec: {nodeName: n1}, status: {podIP: 10.0.0.6}"),
            "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}\n".to_owned(),
        ]
        .concat();
        let objects = objects(&text);
        assert_eq!(ids(&objects), ["a [10.0.0.1, fd00::1]", "b [fd00::2]"]);
        let netns = "metadata.annotations.dataplane.weir.dev/netns";
        assert_eq!(
            texts(&objects.problems("n1")),
            [
                "f.yaml:4: document 2: Pod default/b: status.podIPs[0]: 10.0.0.1 belongs to Pod default/a, which keeps it (AddressTaken)".to_owned(),
                format!("f.yaml:6: document 3: Pod default/c: {netns}: /ns/1 belongs to Pod default/a, which keeps it (NetnsTaken)"),
                "f.yaml:8: document 4: Pod default/d: status.podIPs[0]: 192.168.0.1 belongs to Node n1, which keeps it (AddressTaken)".to_owned(),
                format!("f.yaml:10: document 5: Pod default/e: {netns}: ns/5 is no absolute path; the pod is not connected (InvalidValue)"),
                format!("f.yaml:12: document 6: Pod default/f: {netns}: the pod is this node's and does not say which network namespace is its; it is not connected (MissingNetns)"),
            ]
        );
        let pods = objects.snapshot("n1").pods;
        let addresses: Vec<String> = pods
            .iter()
            .map(|(id, pod)| format!("{} {:?}", id.name, pod.addresses))
            .collect();
        assert_eq!(
            addresses,
            [
                "a [10.0.0.1, fd00::1]",
                "b [fd00::2]",
                "c [10.0.0.3]",
                "d []",
                "e [10.0.0.5]",
                "f [10.0.0.6]"
            ]
        );
    }

    #[test]
    fn problems_of_services_have_their_place() {
        let text = "
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: ns}, spec: {clusterIP: 10.96.0.1, ports: [{port: 0}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e, namespace: ns,
 labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: ['::2']}]}";
        assert_eq!(
            texts(&objects(text).problems("n1")),
            [
                "f.yaml:2: document 1: Service ns/s: metadata.namespace: no manifest describes namespace \"ns\"; it is taken to have the label with its name and no other (MissingNamespace)",
                "f.yaml:2: document 1: Service ns/s: spec.ports[0].port: 0 is no port: they go from 1 to 65535; the port is left out (InvalidPort)",
                "f.yaml:4: document 2: EndpointSlice ns/e: endpoints[0].addresses[0]: ::2 is no address of the slice's addressType IPv4; the endpoint is left out (WrongFamily)",
            ]
        );
    }

    #[test]
    fn the_snapshot_has_what_policy_looks_at() {
        let text = "
apiVersion: v1
kind: Namespace
metadata: {name: ns, labels: {team: a, kubernetes.io/metadata.name: forged}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: ns, annotations: {a: b}}}
---
{apiVersion: dataplane.weir.dev/v1alpha1, kind: FlowLogPolicy, metadata: {name: f}, spec: {}}
---
apiVersion: v1
kind: Pod
metadata:
  name: a
  namespace: ns
  labels: {app: a}
  ownerReferences:
  - {apiVersion: apps/v1, kind: ReplicaSet, name: a-1, uid: '1', controller: true}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}], nodeName: n2}
status: {podIP: 10.0.0.1}
";
        let objects = objects(text);
        let labels = |pairs: &[(&str, &str)]| -> snapshot::Labels {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let address: IpAddr = "10.0.0.1".parse().expect("an address");
        let port = snapshot::NamedPort {
            name: "http".to_owned(),
            protocol: weir_policy::model::Protocol::Tcp,
            port: 80,
        };
        let expected = Snapshot {
            namespaces: BTreeMap::from([(
                "ns".to_owned(),
                labels(&[(NAMESPACE_NAME_LABEL, "ns"), ("team", "a")]),
            )]),
            pods: BTreeMap::from([(
                ObjectName::new("ns", "a"),
                snapshot::Pod {
                    labels: labels(&[("app", "a")]),
                    node: "n2".to_owned(),
                    addresses: vec![address],
                    named_ports: vec![port],
                    ..snapshot::Pod::default()
                },
            )]),
            network_policies: BTreeMap::from([(
                ObjectName::new("ns", "p"),
                snapshot::NetworkPolicy {
                    annotations: labels(&[("a", "b")]),
                    ..snapshot::NetworkPolicy::default()
                },
            )]),
            flow_log_policies: BTreeMap::from([(
                "f".to_owned(),
                objects.flow_log_policies["f"].spec.clone(),
            )]),
            ..Snapshot::default()
        };
        assert_eq!(objects.snapshot("n1"), expected);
        let workload = Some(Workload {
            kind: "ReplicaSet".to_owned(),
            name: "a-1".to_owned(),
        });
        let name = PodName {
            namespace: "ns".to_owned(),
            name: "a".to_owned(),
            workload,
            node_name: Some("n2".to_owned()),
        };
        assert_eq!(
            objects.endpoints("n1"),
            BTreeMap::from([(address, Endpoint::Pod(name))])
        );
        let counts: Vec<_> = objects
            .counts()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            counts,
            [
                ("FlowLogPolicy", 1),
                ("Namespace", 1),
                ("NetworkPolicy", 1),
                ("Pod", 1)
            ]
        );
    }
}
