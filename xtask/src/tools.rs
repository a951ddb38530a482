//! Cargo's own tools, compiled once into the cache outside of the checkout, a folder for each version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use weir_bpf_build::cache;

use crate::process;

/// A program of the package registry, at the version that the project is checked with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// What it costs to compile, for the person who waits.
    cost: &'static str,
}

pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    cost: "three to four minutes",
};
pub(crate) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    cost: "a minute",
};

impl Tool {
    /// The program, compiled when the cache has none.
    pub(crate) fn ensure(self) -> Result<PathBuf> {
        let root = cache::dir()?.join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(self.name);
        if !program.is_file() {
            println!("compiling {} {}: {}, once", self.name, self.version, self.cost);
            let mut command = install_command("install");
            command
                .args(["--locked", "--version", self.version, "--root"])
                .arg(&root)
                .arg(self.name);
            process::run(&mut command).with_context(|| format!("installing {}", self.name))?;
        }
        Ok(program)
    }
}

/// `cargo install` and its like: with the toolchain that runs us, without the settings for our own build.
pub(crate) fn install_command(subcommand: &str) -> Command {
    let mut command = process::cargo();
    command.arg(subcommand).current_dir("/");
    for variable in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
    ] {
        command.env_remove(variable);
    }
    command
}
