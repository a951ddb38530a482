//! Puts the eBPF objects where `include_bytes_aligned!` finds them: `$OUT_DIR/<name>`.

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    weir_bpf_build::embed(root.context("the workspace's root")?)
}
