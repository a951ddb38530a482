//! Builds the static binaries.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::elf;

/// Static binaries, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) agent: PathBuf,
    pub(crate) cni: PathBuf,
    pub(crate) operator: PathBuf,
}

/// This machine's own target, with musl if there are its library for Rust and its compiler for what is in C: musl looks
/// names up without files that an image from scratch lacks.
pub(crate) fn default_target() -> Result<String> {
    let host = answer(rustc().args(["--version", "--verbose"]))?
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("`rustc --version --verbose` names no host")?;
    let musl = host.replace("-gnu", "-musl");
    let library = answer(rustc().args(["--print", "target-libdir", "--target", &musl]))?;
    let compiler = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("musl-gcc").is_file()));
    let has_musl = compiler && Path::new(library.trim()).is_dir();
    Ok(if has_musl { musl } else { host })
}

/// Builds what goes into the images, for a target.
pub(crate) fn binaries(checkout: &Path, target: &str) -> Result<Binaries> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(checkout)
        .args(["build", "--release", "--locked", "--bins", "--target", target])
        .args([
            "--package=weir-agent",
            "--package=weir-cni",
            "--package=weir-operator",
        ])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("building for {target} failed ({status})");
    }
    let root =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), |dir| checkout.join(dir));
    let folder = root.join(target).join("release");
    let binaries = Binaries {
        agent: folder.join("weir-agent"),
        cni: folder.join("weir-cni"),
        operator: folder.join("weir-operator"),
    };
    for path in [&binaries.agent, &binaries.cni, &binaries.operator] {
        elf::check_static(path)?;
    }
    Ok(binaries)
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn answer(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
