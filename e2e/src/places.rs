//! Where things are kept: all below one folder outside of any checkout.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use weir_bpf_build::cache;

/// Folders that a node replaces by its own: what lies below them it cannot see.
const REPLACED_ON_NODES: &[&str] = &["/etc", "/opt", "/proc", "/run", "/sys", "/tmp", "/var"];

/// The folder of everything that belongs to clusters: what is built, and what runs.
///
/// # Errors
/// It would lie where nodes cannot see it; or neither `HOME` nor `XDG_CACHE_HOME` is set.
pub fn root() -> Result<PathBuf> {
    let root = cache::dir()?.join("cluster");
    if let Some(hidden) = hidden_on_nodes(&root) {
        bail!(
            "{}: nodes replace {hidden} by their own: set XDG_CACHE_HOME to a folder elsewhere",
            root.display()
        );
    }
    Ok(root)
}

/// The state of the cluster of that name.
///
/// # Errors
/// As [`root`].
pub fn state(cluster: &str) -> Result<PathBuf> {
    Ok(root()?.join("state").join(cluster))
}

/// Creates a folder and those above it, and sets its mode.
///
/// # Errors
/// It cannot be created; the error names it.
pub fn create_dir(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("creating {}", path.display()))
}

/// Writes a file, replacing what was there.
///
/// # Errors
/// It cannot be written; the error names it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Reads a text file.
///
/// # Errors
/// It cannot be read; the error names it.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn hidden_on_nodes(path: &Path) -> Option<&'static str> {
    REPLACED_ON_NODES
        .iter()
        .copied()
        .find(|replaced| path.starts_with(replaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_replace_is_no_place_for_a_cluster() {
        assert_eq!(hidden_on_nodes(Path::new("/var/cache/weir")), Some("/var"));
        assert_eq!(hidden_on_nodes(Path::new("/home/ann/.cache/weir")), None);
        assert_eq!(hidden_on_nodes(Path::new("/variety")), None);
    }
}
