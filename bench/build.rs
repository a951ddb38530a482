//! Puts the eBPF objects where `include_bytes_aligned!` finds them: `$OUT_DIR/<name>`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use weir_bpf_build::{BpfTree, objects};

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let tree = BpfTree::new(root.context("the workspace's root")?);
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
