//! The compiler for the eBPF programs.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};
use weir_bpf_build::Toolchain;

use super::apt::Apt;
use crate::process;

/// Debian's current compiler with its library's source and its linter; it does not clash with rustup's.
const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// What aya-ebpf asks for, as (major, minor).
const OLDEST: (u32, u32) = (1, 87);

/// The toolchain that [`Toolchain::find`] finds; else Debian's, where apt knows it; else rustup's nightly.
pub(super) fn ensure(apt: &mut Apt) -> Result<Toolchain> {
    let missing = match Toolchain::find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(reason) => reason,
    };
    if env::var_os("BPF_TOOLCHAIN").is_some() {
        return Err(missing);
    }
    if apt.offers(DEBIAN[0])?.as_deref().is_some_and(is_new_enough) {
        apt.install(DEBIAN)?;
    } else if process::on_path("rustup").is_some() {
        process::run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))?;
    } else {
        bail!(
            "the eBPF programs need a Rust compiler with its library's source, and neither apt nor rustup has \
             one here. Install rustup, then `rustup toolchain install nightly --component rust-src`"
        );
    }
    Toolchain::find()
}

/// Whether a Debian version such as `1.96.0+dfsg1-1~deb12u2` is at least [`OLDEST`].
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_debian_versions() {
        assert!(is_new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(is_new_enough("1.87.0-1"));
        assert!(!is_new_enough("1.85.0+dfsg3-1~deb12u3"));
        assert!(!is_new_enough("unknown"));
    }
}
