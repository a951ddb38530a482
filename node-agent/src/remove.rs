//! Taking Weir off a node.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use crate::args::Remove;
use crate::cni::install;
use crate::kernel;
use crate::routes::{self, NodeNetwork};

/// Takes away what an agent puts on a node. Pods that run keep their interfaces, without restriction.
///
/// The network configuration goes first, so that the container runtime starts no pod with half a network; the plugin
/// goes last, since pods are taken down with it.
///
/// # Errors
///
/// If something cannot be taken away. What comes before it is gone, and the next call goes on.
pub async fn run(args: &Remove) -> Result<()> {
    if let Some(directory) = &args.cni_conf_dir
        && install::remove_conflist(directory)?
    {
        info!(file = install::CONFLIST, "removed the network configuration");
    }
    kernel::remove_all(&args.place.bpffs, &args.place.state_dir)?;
    info!("removed programs and maps");
    let none = NodeNetwork::default();
    let plan = routes::reconcile(&none, &BTreeMap::new())
        .await
        .context("removing the routes to other nodes")?;
    info!(
        routes = plan.operations.len(),
        "removed the routes to other nodes"
    );
    if routes::remove_vxlan().await.context("removing the tunnel")? {
        info!("removed the tunnel");
    }
    if let Some(directory) = &args.cni_state_dir {
        empty_directory(directory)?;
    }
    if let Some(directory) = &args.cni_bin_dir
        && install::remove_plugin(directory)?
    {
        info!("removed the CNI plugin");
    }
    Ok(())
}

/// The directory itself may be a mount point.
fn empty_directory(directory: &Path) -> Result<()> {
    let what = || format!("emptying {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(what)?,
    };
    for entry in entries {
        let entry = entry.with_context(what)?;
        let path = entry.path();
        if entry.file_type().with_context(what)?.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        }
        .with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_emptied_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("attachments")).expect("created");
        std::fs::write(directory.path().join("attachments/a.json"), "{}").expect("written");
        std::fs::write(directory.path().join("freed.json"), "[]").expect("written");
        empty_directory(directory.path()).expect("emptied");
        assert_eq!(directory.path().read_dir().expect("there").count(), 0);
        empty_directory(&directory.path().join("absent")).expect("nothing to do");
    }
}
