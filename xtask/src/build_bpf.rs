//! Builds the eBPF objects and puts them where they can be looked at.

use std::fs;

use anyhow::{Context as _, Result};
use weir_bpf_build::{Object, objects};

use crate::args::BuildBpf;
use crate::checkout::Checkout;

pub(crate) fn run(checkout: &Checkout, options: &BuildBpf) -> Result<()> {
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| checkout.target().join("bpf"));
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    for Object { name, path } in objects(&checkout.bpf())? {
        let to = out.join(name);
        let size = fs::copy(&path, &to).with_context(|| format!("copying {}", path.display()))?;
        println!("{} ({size} bytes)", to.display());
    }
    Ok(())
}
