//! The files that a node's programs read.

use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Spec;
use crate::build;
use crate::images;
use crate::places;
use crate::recipes::RUNC_PROGRAM;

pub(super) const CONTAINERD: &str = "/etc/containerd/config.toml";
const KUBELET: &str = "/etc/kubernetes/kubelet.json";

/// The kubelet's certificates, of [`crate::certificates::Certificates::node`].
const PKI: &str = "/etc/kubernetes";

pub(super) fn write_all(spec: &Spec) -> Result<()> {
    for folder in ["/etc/containerd", PKI] {
        places::create_dir(Path::new(folder), 0o755)?;
    }
    let node = &spec.name;
    for file in [
        "ca.crt".to_owned(),
        format!("{node}.crt"),
        format!("{node}.key"),
        format!("{node}.kubeconfig"),
    ] {
        let from = spec.certificates.join(&file);
        fs::copy(&from, Path::new(PKI).join(&file)).with_context(|| format!("copying {}", from.display()))?;
    }
    let runc = build::path(&RUNC_PROGRAM)?;
    places::write(Path::new(CONTAINERD), containerd(&runc))?;
    places::write(Path::new(KUBELET), kubelet(spec).to_string())?;
    // Not written to in place: they may be links into folders that this node does not have.
    for (file, content) in [
        ("/etc/resolv.conf", "nameserver 127.0.0.1\n".to_owned()),
        ("/etc/hosts", hosts(spec)),
    ] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(file),
            _ => places::write(Path::new(file), content)?,
        }
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE, as root in many a container has it, no process can be made harder to kill for want of
/// memory: containerd must not try.
fn containerd(runc: &Path) -> String {
    format!(
        r#"version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"#,
        pause = images::PAUSE,
        runc = runc.display()
    )
}

fn kubelet(spec: &Spec) -> Value {
    let node = &spec.name;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Since Kubernetes 1.35 the default is to refuse control groups of version 1.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": format!("{PKI}/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": format!("{PKI}/{node}.crt"),
        "tlsPrivateKeyFile": format!("{PKI}/{node}.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": spec.dns,
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // Images cannot be pulled again: they must not be collected, and pods not be evicted for want of space.
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "registryPullQPS": 0,
        "serializeImagePulls": false,
        "maxPods": 250,
    })
}

pub(super) fn kubelet_arguments(spec: &Spec) -> Vec<String> {
    let node = &spec.name;
    vec![
        format!("--config={KUBELET}"),
        format!("--kubeconfig={PKI}/{node}.kubeconfig"),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", list(&spec.addresses)),
        format!("--node-labels=topology.kubernetes.io/zone={}", spec.zone),
        "--v=2".to_owned(),
    ]
}

fn hosts(spec: &Spec) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for address in &spec.addresses {
        text.push_str(&format!("{address} {}\n", spec.name));
    }
    text
}

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_is_told_names_zone_and_addresses() {
        let spec = Spec {
            name: "node2".to_owned(),
            zone: "zone-b".to_owned(),
            addresses: vec![[172, 31, 0, 22].into(), "fd00::16".parse().expect("an address")],
            netns: "weir-t-node2".to_owned(),
            cgroup: "weir-t".to_owned(),
            dns: vec![[10, 96, 0, 10].into()],
            certificates: "/s/pki".into(),
            folder: "/s/nodes/node2".into(),
            logs: "/s/logs".into(),
        };
        assert_eq!(
            kubelet_arguments(&spec),
            [
                "--config=/etc/kubernetes/kubelet.json",
                "--kubeconfig=/etc/kubernetes/node2.kubeconfig",
                "--hostname-override=node2",
                "--node-ip=172.31.0.22,fd00::16",
                "--node-labels=topology.kubernetes.io/zone=zone-b",
                "--v=2",
            ]
        );
        assert_eq!(kubelet(&spec)["clusterDNS"], json!(["10.96.0.10"]));
        assert_eq!(
            hosts(&spec),
            "127.0.0.1 localhost\n::1 localhost\n172.31.0.22 node2\nfd00::16 node2\n"
        );
    }
}
