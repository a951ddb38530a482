//! What the cluster looks like: every object of it follows from its number.
//!
//! Namespaces of 150 pods, ten applications in each, an application's pods on nodes all over the cluster. Of a
//! namespace's policies the first denies what no other one allows; the others let one application in from another and
//! from the namespaces of a team.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

const PODS_PER_NAMESPACE: usize = 150;
const APPLICATIONS: usize = 10;
const TEAMS: usize = 20;

/// Coprime to every number of nodes that somebody would ask for: neighbours in number are far apart.
const STRIDE: usize = 7919;

/// How large the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Shape {
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub nodes: usize,
    #[arg(long, default_value_t = 30_000, value_name = "N")]
    pub pods: usize,
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub policies: usize,
}

/// A pod: the `number`-th that ever was, in the place of the `seat`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) seat: usize,
    pub(super) number: usize,
}

impl Shape {
    pub(super) const SMALL: Self = Self {
        nodes: 50,
        pods: 1500,
        policies: 100,
    };

    pub(super) fn namespaces(&self) -> usize {
        self.pods.div_ceil(PODS_PER_NAMESPACE).max(1)
    }

    pub(super) fn namespace(&self, index: usize) -> Value {
        json!({"metadata": {"name": namespace_name(index), "labels": {"team": format!("team-{}", index % TEAMS)}}})
    }

    pub(super) fn node(&self, index: usize) -> Value {
        let (high, low) = (index >> 8, index & 255);
        json!({
            "metadata": {
                "name": node_name(index), "labels": {"topology.kubernetes.io/zone": format!("zone-{}", index % 3)},
            },
            "spec": {"podCIDR": format!("10.{high}.{low}.0/24"), "podCIDRs": [format!("10.{high}.{low}.0/24")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.16.{high}.{low}")}]},
        })
    }

    /// The names of the seats' namespaces are those of [`Shape::namespace`], in which 150 seats lie side by side.
    pub(super) fn namespace_of(seat: usize) -> String {
        namespace_name(seat / PODS_PER_NAMESPACE)
    }

    pub(super) fn node_of(&self, pod: Pod) -> usize {
        pod.number * STRIDE % self.nodes
    }

    pub(super) fn pod(&self, pod: Pod) -> Value {
        let application = format!("app-{}", pod.seat % APPLICATIONS);
        json!({
            "metadata": {
                "name": pod.name(),
                "labels": {
                    "app": application, "pod-template-hash": format!("{:x}", pod.number % 7),
                    "version": (pod.number % 5).to_string(),
                },
            },
            "spec": {
                "nodeName": node_name(self.node_of(pod)),
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": "registry.example/app:1",
                    "ports": [{"name": "http", "containerPort": 8080}],
                }],
            },
        })
    }

    /// The namespace of a policy, and the policy.
    pub(super) fn policy(&self, index: usize) -> (String, Value) {
        let (namespace, rank) = (index % self.namespaces(), index / self.namespaces());
        let spec = match rank.checked_sub(1) {
            None => json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            Some(application) => json!({
                "podSelector": {"matchLabels": {"app": format!("app-{}", application % APPLICATIONS)}},
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [
                        {"podSelector": {"matchLabels": {"app": format!("app-{}", (application + 3) % APPLICATIONS)}}},
                        {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", index % TEAMS)}}},
                        {"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.7.0/24"]}},
                    ],
                    "ports": [{"port": 8080}, {"port": 9000, "endPort": 9100}],
                }],
            }),
        };
        let name = format!("policy-{rank}");
        (
            namespace_name(namespace),
            json!({"metadata": {"name": name}, "spec": spec}),
        )
    }

    /// The nodes with pods of the first namespace, before any pod was replaced.
    pub(super) fn nodes_of_first_namespace(&self) -> BTreeSet<String> {
        let pods = (0..self.pods.min(PODS_PER_NAMESPACE)).map(Pod::first);
        pods.map(|pod| node_name(self.node_of(pod))).collect()
    }
}

impl Pod {
    /// The pod that has the seat from the start.
    pub(super) fn first(seat: usize) -> Self {
        Self { seat, number: seat }
    }

    pub(super) fn name(self) -> String {
        format!("pod-{:06}", self.number)
    }

    pub(super) fn address(self) -> String {
        let [_, a, b, c] = (self.number as u32).to_be_bytes();
        format!("100.{}.{b}.{c}", 64 + a)
    }
}

pub(super) fn namespace_name(index: usize) -> String {
    format!("ns-{index:04}")
}

pub(super) fn node_name(index: usize) -> String {
    format!("node-{index:05}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_spread_and_a_namespace_is_full() {
        let shape = Shape {
            nodes: 1000,
            pods: 30_000,
            policies: 2000,
        };
        assert_eq!(shape.namespaces(), 200);
        assert_eq!(shape.nodes_of_first_namespace().len(), PODS_PER_NAMESPACE);
        let mut per_node = vec![0; shape.nodes];
        for seat in 0..shape.pods {
            per_node[shape.node_of(Pod::first(seat))] += 1;
        }
        assert!(per_node.iter().all(|&pods| pods == 30), "{per_node:?}");
        let namespaces: BTreeSet<String> = (0..shape.pods).map(Shape::namespace_of).collect();
        assert_eq!(namespaces.len(), 200);
    }

    #[test]
    fn no_two_pods_share_an_address() {
        let pods = (0..100_000).map(Pod::first);
        let addresses: BTreeSet<String> = pods.map(Pod::address).collect();
        assert_eq!(addresses.len(), 100_000);
        assert!(addresses.contains("100.64.0.0") && addresses.contains("100.65.0.0"));
    }
}
