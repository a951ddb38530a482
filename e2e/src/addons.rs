//! What a cluster has beside its control plane and a network: a DNS server.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::kubernetes;
use crate::recipes::COREDNS;

const COREDNS_MANIFEST: &str = include_str!("../manifests/coredns.yaml");

/// Applies them; they run once there is a network.
///
/// # Errors
/// The API server refuses one.
pub fn apply(cluster: &Cluster) -> Result<()> {
    let addresses: Vec<_> = cluster
        .plan()
        .dns_service()
        .iter()
        .map(|address| format!("{:?}", address.to_string()))
        .collect();
    let manifest = COREDNS_MANIFEST
        .replace("@VERSION@", COREDNS.version)
        .replace("\"@ADDRESS@\"", &addresses[0])
        .replace("@ADDRESSES@", &format!("[{}]", addresses.join(", ")));
    kubernetes::apply(cluster, &manifest)
}

/// Waits until they run.
///
/// # Errors
/// They do not within the time.
pub fn wait(cluster: &Cluster, patience: Duration) -> Result<()> {
    kubernetes::roll_out(cluster, "kube-system", "deployment/coredns", patience)
}
