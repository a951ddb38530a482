//! What well-formed objects contradict in each other, and what holds then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use weir_policy::snapshot::{self, PodId};

use crate::manifests::object::{Kind, ObjectKey};
use crate::manifests::objects::{NETNS_ANNOTATION, Objects, assigned_node, is_here, needs_link, netns};
use crate::manifests::problem::{Effect, ManifestProblem, ProblemCode};
use crate::services::{ServiceKind, ServicePort, ServiceProblem, ServiceProblemCode, service_ports};

/// Object, field, code, message.
type Fault = (ObjectKey, String, ProblemCode, String);

#[derive(Default)]
pub(super) struct PodAddresses {
    pub of: BTreeMap<PodId, Vec<IpAddr>>,
    problems: Vec<Fault>,
}

impl Objects {
    /// What is wrong with the objects taken together; each of them is well-formed. Sorted.
    pub fn problems(&self, node_name: &str) -> Vec<ManifestProblem> {
        let mut problems = self.pod_addresses().problems;
        problems.extend(self.link_problems(node_name));
        problems.extend(self.missing_namespaces());
        let services = self.services_with_problems().1;
        let mut problems: Vec<ManifestProblem> = problems
            .into_iter()
            .map(|(key, field, code, message)| self.problem(&key, &field, code, message))
            .chain(services.into_iter().map(|problem| self.service_problem(problem)))
            .collect();
        problems.sort();
        problems
    }

    pub(super) fn services_with_problems(&self) -> (Vec<ServicePort>, Vec<ServiceProblem>) {
        let services = self.services.values().map(|service| &**service);
        service_ports(services, self.endpoint_slices.values().map(|slice| &**slice))
    }

    /// The addresses that each pod on the pod network has. A node's address is never a pod's: traffic with it would
    /// pass every policy. Of pods that claim the same, the first by namespace and name has it.
    pub(super) fn pod_addresses(&self) -> PodAddresses {
        let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let addresses = snapshot::Node::from(&**node).addresses;
            owners.extend(
                addresses
                    .into_iter()
                    .map(|address| (address, format!("Node {name}"))),
            );
        }
        let mut result = PodAddresses::default();
        for (id, object) in &self.pods {
            let pod = snapshot::Pod::from(&**object);
            let key = ObjectKey::new(Kind::Pod, &id.namespace, &id.name);
            if pod.is_on_pod_network() && pod.addresses.is_empty() {
                let message = "the pod has no address; nothing reaches it".to_owned();
                result.problems.push((
                    key.clone(),
                    "status.podIPs".to_owned(),
                    ProblemCode::MissingAddress,
                    message,
                ));
            }
            for (i, address) in pod.addresses.iter().copied().enumerate() {
                let taken = pod.is_on_pod_network().then(|| owners.get(&address)).flatten();
                if let Some(owner) = taken {
                    let message = format!("{address} belongs to {owner}, which keeps it");
                    let field = format!("status.podIPs[{i}]");
                    result
                        .problems
                        .push((key.clone(), field, ProblemCode::AddressTaken, message));
                    continue;
                }
                if pod.is_on_pod_network() {
                    owners.insert(address, format!("Pod {id}"));
                }
                result.of.entry(id.clone()).or_default().push(address);
            }
        }
        result
    }

    fn link_problems(&self, node_name: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut owners = BTreeMap::<PathBuf, &PodId>::new();
        let addresses = self.pod_addresses();
        let field = format!("metadata.annotations.{NETNS_ANNOTATION}");
        for (id, pod) in self.pods.iter().filter(|(_, pod)| needs_link(pod)) {
            let key = ObjectKey::new(Kind::Pod, &id.namespace, &id.name);
            let mut fault = |code, message| faults.push((key.clone(), field.clone(), code, message));
            match netns(pod) {
                None if assigned_node(pod) == Some(node_name) => {
                    let message = "the pod is this node's and does not say which network namespace is its; it is \
                                   not connected";
                    fault(ProblemCode::MissingNetns, message.to_owned());
                }
                Some(netns) if is_here(pod, node_name) => {
                    if !netns.is_absolute() {
                        let message = format!(
                            "{} is no absolute path; the pod is not connected",
                            netns.display()
                        );
                        fault(ProblemCode::InvalidValue, message);
                    } else if let Some(owner) = owners.get(&netns) {
                        let message = format!("{} belongs to Pod {owner}, which keeps it", netns.display());
                        fault(ProblemCode::NetnsTaken, message);
                    } else if addresses.of.contains_key(id) {
                        owners.insert(netns, id);
                    }
                }
                _ => {}
            }
        }
        faults
    }

    /// One problem a namespace, at the first object in it. `default` is in every cluster.
    fn missing_namespaces(&self) -> Vec<Fault> {
        let mut known: BTreeSet<&str> = self.namespaces.keys().map(String::as_str).collect();
        known.extend(["", "default"]);
        let mut faults = Vec::new();
        for key in self.origins.keys() {
            if known.insert(&key.namespace) {
                let message = format!(
                    "no manifest describes namespace {:?}; it is taken to have the label with its name and no other",
                    key.namespace
                );
                faults.push((
                    key.clone(),
                    "metadata.namespace".to_owned(),
                    ProblemCode::MissingNamespace,
                    message,
                ));
            }
        }
        faults
    }

    fn problem(&self, key: &ObjectKey, field: &str, code: ProblemCode, message: String) -> ManifestProblem {
        let origin = self.origins.get(key);
        ManifestProblem {
            file: origin.map(|origin| origin.file.clone()).unwrap_or_default(),
            document: origin.map_or(0, |origin| origin.document),
            line: origin.and_then(|origin| origin.line),
            object: Some(key.clone()),
            field: field.to_owned(),
            code,
            message,
            effect: Effect::Noted,
        }
    }

    fn service_problem(&self, problem: ServiceProblem) -> ManifestProblem {
        let kind = match problem.kind {
            ServiceKind::Service => Kind::Service,
            ServiceKind::EndpointSlice => Kind::EndpointSlice,
        };
        let code = match problem.code {
            ServiceProblemCode::MissingAddress => ProblemCode::MissingAddress,
            ServiceProblemCode::InvalidAddress => ProblemCode::InvalidAddress,
            ServiceProblemCode::WrongFamily => ProblemCode::WrongFamily,
            ServiceProblemCode::InvalidPort => ProblemCode::InvalidPort,
            ServiceProblemCode::InvalidProtocol => ProblemCode::InvalidProtocol,
            ServiceProblemCode::AddressTaken => ProblemCode::AddressTaken,
        };
        let key = ObjectKey::new(kind, problem.object.namespace, problem.object.name);
        self.problem(&key, &problem.field, code, problem.message)
    }
}
