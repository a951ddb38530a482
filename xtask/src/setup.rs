//! Installs what building and running needs and this machine lacks. Quick when nothing is missing.

mod apt;
pub(crate) mod cluster;
mod linker;
mod toolchain;
pub(crate) mod virtual_machines;

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use apt::Apt;

/// Programs that the agent's tests and the demo start, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[("ip", "iproute2"), ("nsenter", "util-linux")];

pub(crate) fn run() -> Result<()> {
    let mut apt = Apt::default();
    packages(&mut apt, PROGRAMS)?;
    if let Some(dir) = std::env::var_os("BPF_OBJ_DIR") {
        println!("eBPF objects: prebuilt, from BPF_OBJ_DIR={}", dir.display());
        return Ok(());
    }
    let toolchain = toolchain::ensure(&mut apt)?;
    println!("eBPF compiler: {toolchain}");
    let linker = linker::ensure(&mut apt, toolchain.llvm)?;
    println!("eBPF linker: {}", linker.path.display());
    Ok(())
}

/// The formatter and the linter of the toolchain that runs us: rustup's smallest profile lacks them.
pub(crate) fn checkers() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let there = process::answer(process::cargo().args([subcommand, "--version"])).is_some();
        if !there {
            process::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// Installs the packages of the programs that are neither on `PATH` nor in root's folders.
fn packages(apt: &mut Apt, programs: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| !process::is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Apt::is_here() {
        bail!(
            "install these with your system's package manager, then start again: {}",
            missing.join(" ")
        );
    }
    apt.install(&missing)
}
