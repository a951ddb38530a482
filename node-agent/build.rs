//! Embeds the eBPF objects in the agent.

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    weir_bpf_build::embed(root.context("the agent lies in the workspace's root")?)
}
