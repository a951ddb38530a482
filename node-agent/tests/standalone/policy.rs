//! Policies, as short as tests can have them.

use anyhow::Result;
use serde_json::{Value, json};
use weir_testbed::Manifests;

/// The namespace of everything that is not said to be elsewhere.
pub(crate) const NAMESPACE: &str = "default";

/// Selects by one label.
pub(crate) fn pods(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

/// Writes `networkpolicy-default-NAME.yaml`.
pub(crate) fn network_policy(manifests: &Manifests, name: &str, spec: &Value) -> Result<()> {
    manifests.network_policy(NAMESPACE, name, spec)
}

pub(crate) fn remove_network_policy(manifests: &Manifests, name: &str) -> Result<()> {
    manifests.remove(&format!("networkpolicy-{NAMESPACE}-{name}.yaml"))
}

/// Writes `clusternetworkpolicy-NAME.yaml`.
pub(crate) fn cluster_network_policy(manifests: &Manifests, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name },
        "spec": spec,
    });
    manifests.write_object(&format!("clusternetworkpolicy-{name}.yaml"), &object)
}

pub(crate) fn remove_cluster_network_policy(manifests: &Manifests, name: &str) -> Result<()> {
    manifests.remove(&format!("clusternetworkpolicy-{name}.yaml"))
}

/// Writes `flowlogpolicy-NAME.yaml`.
pub(crate) fn flow_log_policy(manifests: &Manifests, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1",
        "kind": "FlowLogPolicy",
        "metadata": { "name": name },
        "spec": spec,
    });
    manifests.write_object(&format!("flowlogpolicy-{name}.yaml"), &object)
}

/// Nobody may reach the pods, and they may reach nobody.
pub(crate) fn deny_all(app: &str) -> Value {
    json!({ "podSelector": pods(app), "policyTypes": ["Ingress", "Egress"] })
}

/// Only the pods of `from` may reach those of `to`.
pub(crate) fn allow_ingress(to: &str, from: &str) -> Value {
    json!({ "podSelector": pods(to), "policyTypes": ["Ingress"], "ingress": [{ "from": [{ "podSelector": pods(from) }] }] })
}

/// The pods of `from` may reach only those of `to`.
pub(crate) fn allow_egress(from: &str, to: &str) -> Value {
    json!({ "podSelector": pods(from), "policyTypes": ["Egress"], "egress": [{ "to": [{ "podSelector": pods(to) }] }] })
}
