//! Objects of a cluster, through kubectl.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process;

/// By which the fields of what we apply are known to be ours.
const FIELD_MANAGER: &str = "weir-e2e";

/// What `kubectl get` answers, as JSON; `None` when there is no such object.
///
/// # Errors
/// kubectl fails for another reason.
pub fn get(cluster: &Cluster, arguments: &[&str]) -> Result<Option<Value>> {
    let mut command = cluster.kubectl()?;
    command
        .args(["get", "--ignore-not-found", "--output=json"])
        .args(arguments);
    let output = process::output(&mut command)?;
    if output.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&output)
        .map(Some)
        .with_context(|| format!("what `{}` answers", process::words(&command)))
}

/// Applies manifests, server-side.
///
/// # Errors
/// The API server refuses one; the error cites it.
pub fn apply(cluster: &Cluster, manifests: &str) -> Result<()> {
    let mut command = cluster.kubectl()?;
    command
        .args(["apply", "--server-side", "--force-conflicts", "--filename=-"])
        .arg(format!("--field-manager={FIELD_MANAGER}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("starting kubectl")?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(manifests.as_bytes())
            .context("writing to kubectl")?;
    }
    let output = child.wait_with_output().context("waiting for kubectl")?;
    if !output.status.success() {
        bail!(
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

/// Waits for a condition of objects, as `kubectl wait` takes them.
///
/// # Errors
/// It is not met within the time.
pub fn wait(cluster: &Cluster, condition: &str, patience: Duration, objects: &[&str]) -> Result<()> {
    let mut command = cluster.kubectl()?;
    command
        .arg("wait")
        .arg(format!("--for=condition={condition}"))
        .arg(format!("--timeout={}s", patience.as_secs()))
        .args(objects);
    process::run(&mut command)
}

/// Waits until what `kubectl rollout` knows, such as `daemonset/weir-agent`, runs as applied.
///
/// # Errors
/// It does not within the time.
pub fn roll_out(cluster: &Cluster, namespace: &str, object: &str, patience: Duration) -> Result<()> {
    let mut command = cluster.kubectl()?;
    command
        .args(["rollout", "status", object])
        .arg(format!("--namespace={namespace}"))
        .arg(format!("--timeout={}s", patience.as_secs()));
    process::run(&mut command)
}
