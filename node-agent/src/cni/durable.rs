//! Writing files so that they survive the loss of power: whole in their old or their new form, and nothing between.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The file has the bytes and the mode once this returns, also after a crash.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    let written = write(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // What failed is told; what is left of it would only take up space.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(path)
}

/// Returns whether there was one. It does not come back after a crash.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to)?;
    sync_directory(from)
}

/// Whether the file name is one that [`replace`] gives to what it has not finished.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") && name.ends_with(TEMPORARY.as_bytes())
    })
}

/// No ending that a container runtime takes for a network configuration.
const TEMPORARY: &str = ".weir-new";

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    path.with_file_name(name)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    // The mode at creation is less what the process masks, and is not that of a file that was left over.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn replaces_and_removes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        fs::write(temporary(&path), "left by a crash, and longer").expect("written");
        for (text, mode) in [("one", 0o600), ("two", 0o755)] {
            replace(&path, text.as_bytes(), mode).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
        assert!(remove(&path).expect("removed"));
        assert!(!remove(&path).expect("not there"));
    }

    #[test]
    fn leaves_nothing_where_it_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        fs::create_dir(&path).expect("created");
        fs::write(path.join("b"), "").expect("written");
        replace(&path, b"x", 0o600).expect_err("a directory is in the way");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
        assert!(is_temporary(&temporary(&path)));
        assert!(!is_temporary(&path));
    }
}
