//! bpf-linker, compiled against a shared LLVM that the distribution has.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use weir_bpf_build::{LINKER_VERSION, Linker, linker_root};

use super::apt::Apt;
use crate::process;
use crate::tools;

/// The LLVM versions that bpf-linker has a feature for, the one that Debian has first.
const SUPPORTED: &[u32] = &[22, 21, 23];

/// Upstream's programs, by version.
const RELEASES: &str = "https://github.com/aya-rs/bpf-linker/releases/download";

/// The linker that [`Linker::find`] finds; else one that is compiled into the cache; else upstream's binary.
pub(super) fn ensure(apt: &mut Apt, compiler: u32) -> Result<Linker> {
    if let Ok(linker) = Linker::find(compiler) {
        return Ok(linker);
    }
    if let Some(llvm) = library(apt, compiler)? {
        compile(apt, llvm)?;
    } else {
        fetch(apt, compiler).with_context(|| {
            format!(
                "the eBPF programs need bpf-linker {LINKER_VERSION} with LLVM {compiler} or newer; no \
                 llvm-{compiler}-dev is on offer here to compile it with, and upstream's program could not be fetched. \
                 Put the one of upstream's release page on PATH, or add LLVM's own apt repository, then start again"
            )
        })?;
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

/// Upstream's program for this version, statically linked with the newest LLVM.
fn fetch(apt: &mut Apt, compiler: u32) -> Result<()> {
    super::packages(apt, &[("curl", "curl"), ("tar", "tar"), ("zstd", "zstd")])?;
    let bin = linker_root(compiler)?.join("bin");
    fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    let archive = bin.join("bpf-linker.tar.zst");
    let url = release(env::consts::ARCH);
    println!("fetching upstream's bpf-linker {LINKER_VERSION}, once");
    process::run(
        Command::new("curl")
            .args(["--fail", "--silent", "--show-error", "--location", "--output"])
            .arg(&archive)
            .arg(url),
    )?;
    process::run(
        Command::new("tar")
            .args(["--extract", "--zstd", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&bin),
    )?;
    fs::remove_file(&archive).with_context(|| archive.display().to_string())
}

fn release(architecture: &str) -> String {
    format!("{RELEASES}/v{LINKER_VERSION}/bpf-linker-{architecture}-unknown-linux-musl.tar.zst")
}

/// Where Debian's and Ubuntu's LLVM packages install.
fn prefix(llvm: u32) -> PathBuf {
    Path::new("/usr/lib").join(format!("llvm-{llvm}"))
}
