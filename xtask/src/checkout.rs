//! The checkout that we work on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use weir_bpf_build::BpfTree;

use crate::process;

pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The one that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask lies in the workspace's root")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds of the workspace.
    pub(crate) fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    pub(crate) fn bpf(&self) -> BpfTree {
        BpfTree::new(&self.root)
    }

    /// A cargo command on this workspace, with the toolchain that runs us.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = process::cargo();
        command.arg(subcommand).current_dir(&self.root);
        command
    }
}
