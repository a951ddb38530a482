//! Where tools are kept that the project installs for itself: outside of any checkout, so that all share them.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// `$XDG_CACHE_HOME/weir`, or `~/.cache/weir`. It need not exist.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set to an absolute path.
pub fn dir() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("weir"))
        .context("no place for cached tools: set HOME or XDG_CACHE_HOME to an absolute path")
}
