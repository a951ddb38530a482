//! Taking Weir off a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;
use weir_cni::deletions;

use crate::args::Remove;
use crate::cni::install;
use crate::cni::store::is_record_of;
use crate::routes::{self, NodeNetwork};
use crate::{kernel, node_bpffs, workloads};

/// Takes away what an agent puts on a node. Pods that run keep their interfaces, without restriction, and the records
/// of what they were given: without these, an agent to come would take their interfaces for those of pods that are gone.
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
    remove_ways().await?;
    if let Some(directory) = &args.cni_state_dir {
        let interfaces = workloads::list()
            .await
            .context("looking for interfaces of pods that run")?;
        remove_records(directory, &interfaces)?;
        info!(
            pods = interfaces.len(),
            "removed the records of all pods but those that run"
        );
    }
    if let Some(socket) = &args.cni_socket {
        remove_if_there(socket, |socket| fs::remove_file(socket))?;
        remove_if_there(&deletions::directory(socket), |notes| fs::remove_dir_all(notes))?;
    }
    if let Some(directory) = &args.cni_bin_dir
        && install::remove_plugin(directory)?
    {
        info!("removed the CNI plugin");
    }
    if let (Some(proc), Some(bpffs)) = (&args.host_proc, &args.host_bpffs)
        && node_bpffs::unmount(proc, bpffs)?
    {
        info!(path = %bpffs.display(), "unmounted the node's bpffs, which was mounted for an agent");
    }
    Ok(())
}

async fn remove_ways() -> Result<()> {
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
    Ok(())
}

/// All but those of these interfaces. The directory itself may be a mount point, and stays.
fn remove_records(directory: &Path, interfaces: &BTreeSet<String>) -> Result<()> {
    for entry in entries(directory)? {
        let path = entry.path();
        if !is_directory(&entry)? {
            remove_if_there(&path, |path| fs::remove_file(path))?;
            continue;
        }
        let mut kept = false;
        for record in entries(&path)? {
            if interfaces.iter().any(|name| is_record_of(&record.path(), name)) {
                kept = true;
            } else if is_directory(&record)? {
                remove_if_there(&record.path(), |path| fs::remove_dir_all(path))?;
            } else {
                remove_if_there(&record.path(), |path| fs::remove_file(path))?;
            }
        }
        if !kept {
            remove_if_there(&path, |path| fs::remove_dir(path))?;
        }
    }
    Ok(())
}

fn is_directory(entry: &DirEntry) -> Result<bool> {
    let kind = entry.file_type();
    Ok(kind
        .with_context(|| format!("reading {}", entry.path().display()))?
        .is_dir())
}

/// None where there is no directory.
fn entries(directory: &Path) -> Result<Vec<DirEntry>> {
    let what = || format!("reading {}", directory.display());
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .with_context(what),
    }
}

fn remove_if_there(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[&str]) {
        for file in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "{}").expect("written");
        }
    }

    fn found(directory: &Path, prefix: &str, all: &mut Vec<String>) {
        for entry in entries(directory).expect("a list") {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if is_directory(&entry).expect("a kind") {
                found(&entry.path(), &format!("{name}/"), all);
            }
            all.push(name);
        }
        all.sort();
    }

    #[test]
    fn records_of_pods_that_run_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let all = |directory: &Path| {
            let mut all = Vec::new();
            found(directory, "", &mut all);
            all
        };
        write(
            directory.path(),
            &[
                "attachments/weir0a.json",
                "attachments/weir0b.json",
                "attachments/.weir0a.json.weir-new",
                "unreadable/weir0b.json",
                "unreadable/weir0c.1.json",
                "freed.json",
                "lock",
            ],
        );
        let running = BTreeSet::from(["weir0a".to_owned(), "weir0c".to_owned()]);
        remove_records(directory.path(), &running).expect("removed");
        assert_eq!(
            all(directory.path()),
            [
                "attachments",
                "attachments/weir0a.json",
                "unreadable",
                "unreadable/weir0c.1.json"
            ]
        );
        // Once they are gone, nothing is left, and there is nothing to be done where there is nothing.
        for _ in 0..2 {
            remove_records(directory.path(), &BTreeSet::new()).expect("removed");
            assert_eq!(all(directory.path()), Vec::<String>::new());
        }
        remove_records(&directory.path().join("absent"), &running).expect("nothing to do");
    }
}
