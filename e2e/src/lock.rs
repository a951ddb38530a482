//! One process at a time, where several would write the same files.

use std::fs::File;

use anyhow::{Context as _, Result};

use crate::places;
use crate::progress::Progress;

/// Held until dropped, and at most until this process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of that name, and says so when it has to wait.
///
/// # Errors
/// There is no cache.
pub fn lock(name: &str, progress: Progress) -> Result<Lock> {
    let root = places::root()?;
    places::create_dir(&root, 0o755)?;
    let path = root.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    if file.try_lock().is_err() {
        progress.say(format_args!(
            "waiting for another process that holds {}",
            path.display()
        ));
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}
