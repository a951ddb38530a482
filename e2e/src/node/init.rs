//! What a node's PID 1 does.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};

use super::supervise::{Service, supervise};
use super::{Spec, configuration, mounts};
use crate::build;
use crate::network;
use crate::recipes::{CONTAINERD_SERVER, KUBELET};

/// Where containerd listens.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Sets up the node around this process and runs its programs for ever.
///
/// # Errors
/// The node cannot be set up.
pub fn init(spec_file: &Path) -> Result<()> {
    let spec = Spec::read(spec_file)?;
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    nix::unistd::sethostname(&spec.name).context("setting the host name")?;
    mounts::mount_all(&spec)?;
    network::forward()?;
    configuration::write_all(&spec)?;
    // From an earlier life; the kubelet must not find it before containerd listens.
    let _ = fs::remove_file(SOCKET);
    supervise(&services(&spec)?)
}

fn services(spec: &Spec) -> Result<Vec<Service>> {
    let containerd = build::path(&CONTAINERD_SERVER)?.display().to_string();
    let kubelet = build::path(&KUBELET)?.display().to_string();
    let mut kubelet = vec![kubelet];
    kubelet.extend(configuration::kubelet_arguments(spec));
    Ok(vec![
        Service {
            words: vec![containerd, format!("--config={}", configuration::CONTAINERD)],
            log: spec.log("containerd"),
            after: None,
        },
        Service {
            words: kubelet,
            log: spec.log("kubelet"),
            after: Some(SOCKET.into()),
        },
    ])
}
