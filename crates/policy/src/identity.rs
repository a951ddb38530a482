//! What makes pods equal in the eyes of the policies.
//!
//! An identity is the part of a pod that some policy looks at. A label that no policy selects on is not part of it, so
//! pods that differ in such labels alone share an identity.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Namespaces, Peer, Peers, PodSelector, Policy, PortMatch, Ports, Protocol, Rule};
use crate::snapshot::{Labels, Pod, PodId, Snapshot};

/// What the policies look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relevance {
    pub pod_labels: BTreeSet<String>,
    pub namespace_labels: BTreeSet<String>,
    pub named_ports: BTreeSet<String>,
}

/// The pods of one namespace that no policy can tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityKey {
    pub namespace: String,
    pub pod_labels: Labels,
    pub namespace_labels: Labels,
    pub named_ports: NamedPorts,
}

/// The ports that a pod gives each name.
pub type NamedPorts = BTreeMap<String, BTreeSet<(Protocol, u16)>>;

impl Relevance {
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let mut relevance = Self::default();
        for policy in policies {
            relevance.add_selector(&policy.subject);
            let rules = policy.ingress.rules.iter().chain(&policy.egress.rules);
            rules.for_each(|rule| relevance.add_rule(rule));
        }
        relevance
    }

    fn add_rule(&mut self, rule: &Rule) {
        if let Peers::Of(peers) = &rule.peers {
            for peer in peers {
                match peer {
                    Peer::Pods(selector) => self.add_selector(selector),
                    Peer::Network(_) => {}
                }
            }
        }
        if let Ports::Of(ports) = &rule.ports {
            for port in ports {
                match port {
                    PortMatch::Named { name, .. } if !self.named_ports.contains(name) => {
                        self.named_ports.insert(name.clone());
                    }
                    PortMatch::Named { .. } | PortMatch::Range { .. } => {}
                }
            }
        }
    }

    fn add_selector(&mut self, selector: &PodSelector) {
        insert_all(&mut self.pod_labels, selector.pods.keys());
        match &selector.namespaces {
            Namespaces::Labelled(namespaces) => insert_all(&mut self.namespace_labels, namespaces.keys()),
            Namespaces::Named(_) => {}
        }
    }

    /// The identity of a pod; `None` where policies do not see it as a pod.
    #[must_use]
    pub fn key(&self, snapshot: &Snapshot, id: &PodId, pod: &Pod) -> Option<IdentityKey> {
        if !pod.is_on_pod_network() {
            return None;
        }
        let pod_label = |key: &str| pod.labels.get(key).map(String::as_str);
        let namespace_label = |key: &str| snapshot.namespace_label(&id.namespace, key);
        Some(IdentityKey {
            namespace: id.namespace.clone(),
            pod_labels: pick(&self.pod_labels, pod_label),
            namespace_labels: pick(&self.namespace_labels, namespace_label),
            named_ports: self.pick_named_ports(pod),
        })
    }

    fn pick_named_ports(&self, pod: &Pod) -> NamedPorts {
        let mut picked = NamedPorts::new();
        for port in pod
            .named_ports
            .iter()
            .filter(|port| self.named_ports.contains(&port.name))
        {
            picked
                .entry(port.name.clone())
                .or_default()
                .insert((port.protocol, port.port));
        }
        picked
    }
}

impl PodSelector {
    /// Whether the pods of this identity are selected. The identity's [`Relevance`] must cover the selector.
    #[must_use]
    pub fn matches(&self, identity: &IdentityKey) -> bool {
        let in_namespace = match &self.namespaces {
            Namespaces::Named(name) => *name == identity.namespace,
            Namespaces::Labelled(selector) => {
                selector.matches(|key| identity.namespace_labels.get(key).map(String::as_str))
            }
        };
        in_namespace
            && self
                .pods
                .matches(|key| identity.pod_labels.get(key).map(String::as_str))
    }
}

/// The identity of each pod that has one.
#[must_use]
pub fn keys<'a>(relevance: &Relevance, snapshot: &'a Snapshot) -> BTreeMap<&'a PodId, IdentityKey> {
    let pods = snapshot.pods.iter();
    pods.filter_map(|(id, pod)| Some((id, relevance.key(snapshot, id, pod)?)))
        .collect()
}

/// The labels that have one of these keys.
fn pick<'a>(keys: &BTreeSet<String>, label: impl Fn(&str) -> Option<&'a str>) -> Labels {
    keys.iter()
        .filter_map(|key| Some((key.clone(), label(key)?.to_owned())))
        .collect()
}

/// Copies only the keys that are new: policies by the thousand name the same few.
fn insert_all<'a>(set: &mut BTreeSet<String>, keys: impl Iterator<Item = &'a str>) {
    for key in keys {
        if !set.contains(key) {
            set.insert(key.to_owned());
        }
    }
}
