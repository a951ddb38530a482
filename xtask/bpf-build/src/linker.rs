//! bpf-linker: links LLVM bitcode into a BPF object.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cache, toolchain::check_llvm};

/// The version that is installed, and that one found on `PATH` must have: linker flags in `bpf/.cargo/config.toml`
/// and the code it generates depend on it.
pub const LINKER_VERSION: &str = "0.13.0";

/// A bpf-linker that can read what the compiler writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
}

/// The `--root` under which `cargo xtask setup` installs a linker of this LLVM.
///
/// # Errors
/// As [`cache::dir`].
pub fn linker_root(llvm: u32) -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm{llvm}")))
}

impl Linker {
    /// The linker for a compiler with this LLVM: one from the cache with the same LLVM or the next ones, else
    /// the one on `PATH`.
    ///
    /// # Errors
    /// There is none that fits. The error says why each candidate does not, and what to do.
    pub fn find(llvm: u32) -> Result<Self> {
        let mut reasons = Vec::new();
        for path in candidates(llvm)? {
            match check(&path, llvm) {
                Ok(()) => return Ok(Self { path }),
                Err(reason) => reasons.push(format!("\n  {}: {reason:#}", path.display())),
            }
        }
        bail!(
            "no bpf-linker {LINKER_VERSION} with LLVM {llvm} or newer. Run `cargo xtask setup`{}",
            reasons.concat()
        )
    }
}

/// Linkers that exist, best first. LLVM makes two major versions a year, so three ahead are enough to look for.
fn candidates(llvm: u32) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for newer in llvm..llvm + 4 {
        found.push(linker_root(newer)?.join("bin/bpf-linker"));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    found.extend(env::split_paths(&path).map(|dir| dir.join("bpf-linker")));
    found.retain(|path| path.is_file());
    Ok(found)
}

fn check(path: &Path, llvm: u32) -> Result<()> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .context("does not start")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || answer.trim() != format!("bpf-linker {LINKER_VERSION}") {
        bail!("answers `{}`, not `bpf-linker {LINKER_VERSION}`", answer.trim());
    }
    match linked_llvm(&fs::read(path)?) {
        Some(linked) => check_llvm(llvm, linked),
        // Linked statically, as upstream's release binaries are: nothing to read, and those carry the newest.
        None => Ok(()),
    }
}

/// Major version of the shared LLVM library that a program names, read from its dynamic section's strings.
fn linked_llvm(program: &[u8]) -> Option<u32> {
    [b"libLLVM.so.".as_slice(), b"libLLVM-".as_slice()]
        .into_iter()
        .find_map(|prefix| {
            program
                .windows(prefix.len())
                .enumerate()
                .filter(|(_, window)| *window == prefix)
                .find_map(|(at, _)| leading_number(&program[at + prefix.len()..]))
        })
}

fn leading_number(bytes: &[u8]) -> Option<u32> {
    let digits = bytes
        .iter()
        .take(4)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_llvm_of_a_dynamic_program() {
        assert_eq!(linked_llvm(b"\x7fELF..\0libLLVM.so.22.1\0libc.so.6\0"), Some(22));
        assert_eq!(linked_llvm(b"\0libLLVM-18.so\0"), Some(18));
        assert_eq!(linked_llvm(b"libLLVM.so.\0 and libLLVM.so.21"), Some(21));
        assert_eq!(linked_llvm(b"libc.so.6\0"), None);
        assert_eq!(linked_llvm(b"libLLVM.so."), None);
    }

    #[test]
    fn refuses_an_older_llvm_only() {
        assert!(check_llvm(22, 22).is_ok());
        assert!(check_llvm(21, 22).is_ok());
        let error = check_llvm(23, 22).expect_err("older").to_string();
        assert_eq!(
            error,
            "it was built with LLVM 22, and the compiler's LLVM 23 is newer"
        );
    }
}
