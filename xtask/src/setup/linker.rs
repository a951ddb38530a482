//! bpf-linker, compiled against a shared LLVM that the distribution has.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use weir_bpf_build::{LINKER_VERSION, Linker, linker_root};

use super::apt::Apt;
use crate::process;
use crate::tools;

/// The LLVM versions that bpf-linker has a feature for, the one that Debian has first.
const SUPPORTED: &[u32] = &[22, 21, 23];

/// The linker that [`Linker::find`] finds; else one that is compiled into the cache; else upstream's binary.
pub(super) fn ensure(apt: &mut Apt, compiler: u32) -> Result<Linker> {
    if let Ok(linker) = Linker::find(compiler) {
        return Ok(linker);
    }
    if let Some(llvm) = library(apt, compiler)? {
        compile(apt, llvm)?;
    } else if process::on_path("cargo-binstall").is_some() {
        let mut command = tools::install_command("binstall");
        command
            .args(["--no-confirm", "--root"])
            .arg(linker_root(compiler)?)
            .arg(format!("bpf-linker@{LINKER_VERSION}"));
        process::run(&mut command)?;
    } else {
        bail!(
            "the eBPF programs need bpf-linker {LINKER_VERSION} with LLVM {compiler} or newer, and no \
             llvm-{compiler}-dev package is on offer here to compile it with. Do one of these, then start again:\n  \
             - `cargo install cargo-binstall` (setup then fetches upstream's release binary with it);\n  \
             - put the bpf-linker of upstream's release page on PATH;\n  \
             - add LLVM's own apt repository, so that apt offers llvm-{compiler}-dev"
        );
    }
    Linker::find(compiler)
}

/// The version of a development package of LLVM that can be linked with: one that is here, else one that apt has.
fn library(apt: &mut Apt, compiler: u32) -> Result<Option<u32>> {
    let fitting = || SUPPORTED.iter().copied().filter(|llvm| *llvm >= compiler);
    if let Some(installed) = fitting().find(|llvm| prefix(*llvm).join("include/llvm-c").is_dir()) {
        return Ok(Some(installed));
    }
    for llvm in fitting() {
        let package = format!("llvm-{llvm}-dev");
        if apt.offers(&package)?.is_some() {
            apt.install(&[&package])?;
            return Ok(Some(llvm));
        }
    }
    Ok(None)
}

fn compile(apt: &mut Apt, llvm: u32) -> Result<()> {
    // It links the C++ standard library, whose linker script comes with the compiler.
    if process::on_path("c++").is_none() && Apt::is_here() {
        apt.install(&["g++"])?;
    }
    println!("compiling bpf-linker {LINKER_VERSION} with LLVM {llvm}: a minute or two, once");
    let mut command = tools::install_command("install");
    command
        .args(["--locked", "--version", LINKER_VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(linker_root(llvm)?)
        .arg("bpf-linker")
        .env("LLVM_PREFIX", prefix(llvm));
    process::run(&mut command)
}

/// Where Debian's and Ubuntu's LLVM packages install.
fn prefix(llvm: u32) -> PathBuf {
    Path::new("/usr/lib").join(format!("llvm-{llvm}"))
}
