//! Tells when a directory of manifests may have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// How long changes are gathered before they are told of.
    pub debounce: Duration,
    /// After how long without a change the directory is to be read all the same. Changes that the kernel does not
    /// tell of (a network file system, a directory that was replaced) take this long.
    pub rescan: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(20),
            rescan: Duration::from_secs(5),
        }
    }
}

/// Watches a directory, which need not exist yet. Each message means that it should be read again; a message that
/// nobody has taken yet stands for all that came after. The watching ends when the receiver is dropped.
///
/// # Errors
///
/// The kernel gives no more inotify instances.
pub fn watch(directory: &Path, settings: WatchSettings) -> notify::Result<mpsc::Receiver<()>> {
    let changed = Arc::new(Notify::new());
    let notifier = Arc::clone(&changed);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error means that events were missed.
        if event.map_or(true, |event| is_change(&event.kind)) {
            notifier.notify_one();
        }
    })?;
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(run(watcher, directory.to_owned(), settings, changed, tell));
    Ok(told)
}

/// Whether something may be different. Opening and reading a file is an event too, and is what the reader does.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

async fn run(
    mut watcher: RecommendedWatcher,
    directory: PathBuf,
    settings: WatchSettings,
    changed: Arc<Notify>,
    tell: mpsc::Sender<()>,
) {
    loop {
        // Each time anew, since the directory may be another one by now. Where it does not exist, the rescan finds it.
        if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, directory = %directory.display(), "not watched");
        }
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(settings.debounce).await,
            () = tokio::time::sleep(settings.rescan) => {}
            () = tell.closed() => return,
        }
        // Full means that the reader has yet to look, and then sees this change too.
        if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(200);

    fn settings(rescan: Duration) -> WatchSettings {
        WatchSettings {
            rescan,
            ..WatchSettings::default()
        }
    }

    async fn told(changes: &mut mpsc::Receiver<()>, within: Duration) -> bool {
        tokio::time::timeout(within, changes.recv())
            .await
            .is_ok_and(|change| change.is_some())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_told_once_and_reading_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut changes = watch(directory.path(), settings(NEVER)).expect("watched");
        // The watch begins in the task.
        tokio::time::sleep(QUIET).await;
        let file = directory.path().join("a.yaml");
        fs::write(&file, "a: 1").expect("written");
        let before = Instant::now();
        assert!(told(&mut changes, SOON).await, "a new file");
        assert!(before.elapsed() < Duration::from_secs(1));
        while told(&mut changes, QUIET).await {}
        fs::read_to_string(&file).expect("read");
        fs::read_dir(directory.path()).expect("read").count();
        assert!(!told(&mut changes, QUIET).await, "nothing changed");
        fs::rename(&file, directory.path().join("b.yaml")).expect("renamed");
        assert!(told(&mut changes, SOON).await, "a renamed file");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_that_comes_later_is_found() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("manifests");
        let mut changes = watch(&directory, settings(Duration::from_millis(50))).expect("watched");
        assert!(told(&mut changes, SOON).await, "the rescan");
        fs::create_dir(&directory).expect("created");
        assert!(told(&mut changes, SOON).await, "the rescan");
    }
}
