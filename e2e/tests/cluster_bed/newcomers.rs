//! Pods' networks on a node as they are made: before a pod has an interface, and long before it runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use weir_e2e::node::Spec;

use super::netns::{Netns, folder};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);

pub(crate) struct Newcomers {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Newcomers {
    /// Tells of each network that appears from then on, also after the node was started anew.
    pub(crate) fn watch(node: &Spec, mut found: impl FnMut(Netns) + Send + 'static) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (end, node) = (Arc::clone(&over), node.clone());
        let mut known: BTreeSet<OsString> = names(&node).unwrap_or_default();
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let there = names(&node).unwrap_or_default();
                for name in &there {
                    if known.contains(name) {
                        continue;
                    }
                    let path = folder(&node).map(|folder| folder.join(name));
                    let netns = path.and_then(|path| Netns::open(&path).ok());
                    // The file is there before the namespace is mounted on it.
                    if let Some(netns) = netns.filter(|netns| netns.run(|| ()).is_ok()) {
                        known.insert(name.clone());
                        found(netns);
                    }
                }
                thread::sleep(INTERVAL);
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

fn names(node: &Spec) -> Option<BTreeSet<OsString>> {
    let entries = fs::read_dir(folder(node)?).ok()?;
    Some(entries.flatten().map(|entry| entry.file_name()).collect())
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
