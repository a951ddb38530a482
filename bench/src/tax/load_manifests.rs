//! The manifests of a large cluster, of which the agent makes what [`Load`] says.

use anyhow::Result;
use serde_json::{Value, json};
use weir_testbed::Manifests;

use crate::load::Load;

const NAMESPACE: &str = "load";
const NODE: &str = "elsewhere";

/// The label that makes the pods differ where policies look.
const LABEL: &str = "kind";

/// Three files, of many documents each.
pub(super) fn write(manifests: &Manifests, load: &Load) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    manifests.write("load-namespace.yaml", &text([namespace]))?;
    manifests.write("load-services.yaml", &text((0..load.services).map(service)))?;
    manifests.write(
        "load-endpointslices.yaml",
        &text((0..load.services).map(|i| endpoint_slice(load, i))),
    )?;
    manifests.write("load-pods.yaml", &text((0..load.addresses).map(|i| pod(load, i))))
}

/// Selects every pod of the load, by a label that each kind of them has another value of.
pub(super) fn any_pod() -> Value {
    json!({ "matchExpressions": [{ "key": LABEL, "operator": "Exists" }] })
}

/// One policy set has an entry a direction and kind of pod.
fn kinds(load: &Load) -> u32 {
    (load.policy / 2).max(1)
}

/// JSON is YAML.
fn text(objects: impl IntoIterator<Item = Value>) -> String {
    objects.into_iter().fold(String::new(), |text, object| {
        text + "---\n" + &object.to_string() + "\n"
    })
}

fn pod(load: &Load, index: u32) -> Value {
    let ip = Load::pod_address(index).to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("p{index}"),
            "namespace": NAMESPACE,
            "labels": { LABEL: (index % kinds(load)).to_string() },
        },
        "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none" }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })
}

fn service(index: u32) -> Value {
    let ip = Load::service_address(index).to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("s{index}"), "namespace": NAMESPACE },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{ "protocol": "TCP", "port": 80, "targetPort": 8080 }],
        },
    })
}

fn endpoint_slice(load: &Load, index: u32) -> Value {
    let each = load.backends / load.services;
    let endpoint = |i| json!({ "addresses": [Load::pod_address(i)], "conditions": { "ready": true } });
    let endpoints: Vec<Value> = (index * each..(index + 1) * each).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{index}"),
            "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": format!("s{index}") },
        },
        "addressType": "IPv4",
        "ports": [{ "protocol": "TCP", "port": 8080 }],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_agent::manifests;

    use super::*;

    #[test]
    fn an_agent_reads_all_of_it() {
        let directory = std::env::temp_dir().join(format!("weir-bench-manifests-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let load = Load::SMALL;
        let written = write(&Manifests::in_directory(&directory), &load);
        let (objects, problems) = manifests::load(&directory);
        std::fs::remove_dir_all(&directory).expect("removed");
        written.expect("written");
        assert_eq!(problems, []);
        assert_eq!(objects.problems("here"), []);
        assert_eq!(objects.snapshot("here").pods.len() as u32, load.addresses);
        let services = objects.service_ports();
        let backends: usize = services.iter().map(|service| service.backends.len()).sum();
        assert_eq!(
            (services.len() as u32, backends as u32),
            (load.services, load.backends)
        );
        let kinds_found: BTreeSet<String> = objects
            .snapshot("here")
            .pods
            .values()
            .map(|pod| pod.labels[LABEL].clone())
            .collect();
        assert_eq!(kinds_found.len() as u32, kinds(&load));
    }
}
