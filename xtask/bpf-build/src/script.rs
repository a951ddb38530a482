//! What a crate's build script does to embed the objects.
#![expect(
    clippy::print_stdout,
    reason = "a build script talks to cargo over its standard output"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{BpfTree, objects};

/// Puts all objects of the checkout at `root` into `OUT_DIR`, under their names, where
/// `include_bytes_aligned!(concat!(env!("OUT_DIR"), "/<name>"))` finds them; and tells cargo when to do so again.
///
/// # Errors
/// As [`objects`]; or this is not a build script.
pub fn embed(root: &Path) -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR for build scripts")?);
    let tree = BpfTree::new(root);
    for variable in ["BPF_OBJ_DIR", "BPF_TOOLCHAIN", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let prebuilt = env::var_os("BPF_OBJ_DIR").map(PathBuf::from);
    for input in prebuilt.map_or_else(|| tree.inputs(), |dir| vec![dir]) {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    for object in objects(&tree)? {
        fs::copy(&object.path, out.join(&object.name))
            .with_context(|| format!("copying {}", object.path.display()))?;
    }
    Ok(())
}
