//! Kubernetes objects for a standalone agent, as files in a directory that it watches.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Says where a standalone agent finds the network namespace of a pod.
const NETNS_ANNOTATION: &str = "dataplane.weir.dev/netns";

/// A directory of manifests. Each file appears, changes and goes at once: no reader sees half of one.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

/// A running pod.
#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub node: String,
    pub addresses: Vec<IpAddr>,
    /// The file of its network namespace.
    pub netns: PathBuf,
    pub ports: Vec<Port>,
}

/// A port of a container, of a Service or of an EndpointSlice.
#[derive(Clone, Debug)]
pub struct Port {
    /// Empty for none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port: u16,
    /// Of a Service: where it goes. Elsewhere unused.
    pub target: u16,
}

/// A Service of type ClusterIP, of the families that its addresses have.
#[derive(Clone, Debug)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<Port>,
}

/// The endpoints of a Service in one family.
#[derive(Clone, Debug)]
pub struct EndpointSlice {
    pub namespace: String,
    pub name: String,
    pub service: String,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: IpAddr,
    pub node: String,
    pub ready: bool,
}

impl Manifests {
    /// In a directory that is there.
    pub fn in_directory(directory: &Path) -> Manifests {
        Manifests {
            directory: directory.into(),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file, whatever was in it before.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.directory.join(file);
        let failed = || path.display().to_string();
        // Not `.yaml`: an unfinished file is no manifest.
        let mut unfinished = tempfile::Builder::new()
            .suffix(".part")
            .tempfile_in(&self.directory)
            .with_context(failed)?;
        unfinished.write_all(text.as_bytes()).with_context(failed)?;
        unfinished.persist(&path).with_context(failed)?;
        Ok(())
    }

    /// Writes one object.
    pub fn write_object(&self, file: &str, object: &Value) -> Result<()> {
        self.write(file, &serde_yaml_ng::to_string(object).context("write YAML")?)
    }

    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// `namespace-NAME.yaml`.
    pub fn namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<()> {
        let mut labels = labels.clone();
        // Every namespace has it, by the API server.
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
        let metadata = json!({ "name": name, "labels": labels });
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
        self.write_object(&format!("namespace-{name}.yaml"), &object)
    }

    /// `pod-NAMESPACE-NAME.yaml`.
    pub fn pod(&self, pod: &Pod) -> Result<()> {
        self.write_object(
            &format!("pod-{}-{}.yaml", pod.namespace, pod.name),
            &pod.manifest(),
        )
    }

    /// `service-NAMESPACE-NAME.yaml`.
    pub fn service(&self, service: &Service) -> Result<()> {
        self.write_object(
            &format!("service-{}-{}.yaml", service.namespace, service.name),
            &service.manifest(),
        )
    }

    /// `endpointslice-NAMESPACE-NAME.yaml`.
    pub fn endpoint_slice(&self, slice: &EndpointSlice) -> Result<()> {
        self.write_object(
            &format!("endpointslice-{}-{}.yaml", slice.namespace, slice.name),
            &slice.manifest(),
        )
    }

    /// `networkpolicy-NAMESPACE-NAME.yaml`, with this `spec`.
    pub fn network_policy(&self, namespace: &str, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": namespace },
            "spec": spec,
        });
        self.write_object(&format!("networkpolicy-{namespace}-{name}.yaml"), &object)
    }
}

impl Pod {
    fn manifest(&self) -> Value {
        let addresses: Vec<Value> = self.addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| port.manifest("containerPort", port.port))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": { NETNS_ANNOTATION: self.netns },
            },
            "spec": {
                "nodeName": self.node,
                "containers": [{ "name": "main", "image": "none", "ports": ports }],
            },
            "status": {
                "phase": "Running",
                "podIP": self.addresses.first(),
                "podIPs": addresses,
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    }
}

impl Service {
    fn manifest(&self) -> Value {
        let families: Vec<&str> = self
            .cluster_ips
            .iter()
            .map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" })
            .collect();
        let policy = if families.len() > 1 {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                let mut manifest = port.manifest("port", port.port);
                manifest["targetPort"] = port.target.into();
                manifest
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": self.cluster_ips.first(),
                "clusterIPs": self.cluster_ips,
                "ipFamilies": families,
                "ipFamilyPolicy": policy,
                "ports": ports,
            },
        })
    }
}

impl EndpointSlice {
    fn manifest(&self) -> Value {
        let v6 = self.endpoints.iter().any(|endpoint| endpoint.address.is_ipv6());
        let endpoints: Vec<Value> = self.endpoints.iter().map(Endpoint::manifest).collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| port.manifest("port", port.port))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": { "kubernetes.io/service-name": self.service },
            },
            "addressType": if v6 { "IPv6" } else { "IPv4" },
            "ports": ports,
            "endpoints": endpoints,
        })
    }
}

impl Endpoint {
    fn manifest(&self) -> Value {
        json!({
            "addresses": [self.address],
            "nodeName": self.node,
            "conditions": { "ready": self.ready, "serving": self.ready, "terminating": false },
        })
    }
}

impl Port {
    /// `key` is what the field is called where it stands.
    fn manifest(&self, key: &str, number: u16) -> Value {
        let mut manifest = json!({ "protocol": self.protocol, key: number });
        if !self.name.is_empty() {
            manifest["name"] = self.name.clone().into();
        }
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_change_and_go_and_nothing_else_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let manifests = Manifests::in_directory(directory.path());
        manifests.write("a.yaml", "one").expect("written");
        manifests.write("a.yaml", "two").expect("written again");
        manifests.write("b.yaml", "three").expect("written");
        assert_eq!(manifests.read("a.yaml").expect("read"), "two");
        manifests.remove("b.yaml").expect("removed");
        let files: Vec<_> = fs::read_dir(directory.path())
            .expect("listed")
            .flatten()
            .map(|f| f.file_name())
            .collect();
        assert_eq!(files, ["a.yaml"]);
        assert!(manifests.remove("b.yaml").is_err());
    }

    #[test]
    fn a_service_has_the_families_of_its_addresses() {
        let port = Port {
            name: String::new(),
            protocol: "TCP".into(),
            port: 80,
            target: 8080,
        };
        let service = Service {
            namespace: "default".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.10".parse().expect("v4"), "fd00::a".parse().expect("v6")],
            ports: vec![port],
        };
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "10.96.0.10",
                "clusterIPs": ["10.96.0.10", "fd00::a"],
                "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [{ "protocol": "TCP", "port": 80, "targetPort": 8080 }],
            },
        });
        assert_eq!(service.manifest(), expected);
    }
}
