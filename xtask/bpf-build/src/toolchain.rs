//! The compiler for the eBPF objects: one that has the source of its own standard library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::environment::scrubbed;

/// The distribution's compiler. Debian's is called `rustc-web` and does not clash with rustup's.
pub const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_CARGO: &str = "/usr/bin/cargo";
const SYSTEM_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// A compiler and cargo that can build `core` for the BPF target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    origin: Origin,
    /// What the compiler calls itself, as in `rustc 1.96.0 (…)`.
    pub version: String,
    /// Major version of the compiler's LLVM; the linker's must not be older.
    pub llvm: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A rustup toolchain by name.
    Rustup(String),
    /// [`SYSTEM_RUSTC`] and the cargo beside it.
    System,
}

impl Toolchain {
    /// The toolchain named by `BPF_TOOLCHAIN`; else rustup's nightly; else the distribution's. The first of
    /// these that is installed together with its standard library's source.
    ///
    /// # Errors
    /// There is none, or the one named lacks the source. The error says what to install.
    pub fn find() -> Result<Self> {
        if let Ok(name) = env::var("BPF_TOOLCHAIN") {
            return Self::with_source(Origin::Rustup(name.clone())).with_context(|| {
                format!("BPF_TOOLCHAIN={name}: not a rustup toolchain with the component rust-src")
            });
        }
        [Origin::Rustup("nightly".to_owned()), Origin::System]
            .into_iter()
            .find_map(Self::with_source)
            .context(
                "no Rust toolchain here can build the eBPF programs: it needs the standard library's source. \
                 Run `cargo xtask setup`, or set BPF_OBJ_DIR to a directory with prebuilt objects",
            )
    }

    fn with_source(origin: Origin) -> Option<Self> {
        let sysroot = answer(origin.rustc().args(["--print", "sysroot"]))?;
        if !library_source(Path::new(sysroot.trim())).is_file() {
            return None;
        }
        let (version, llvm) = parse_version(&answer(origin.rustc().arg("-vV"))?)?;
        Some(Self {
            origin,
            version,
            llvm,
        })
    }

    /// A `cargo` that compiles with this toolchain, whatever runs us.
    ///
    /// `RUSTC_BOOTSTRAP` opens `build-std` on a released compiler and changes nothing on a nightly one.
    pub fn cargo(&self) -> Command {
        let mut command = match &self.origin {
            Origin::Rustup(name) => {
                let mut command = scrubbed("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
            Origin::System => {
                let mut command = scrubbed(SYSTEM_CARGO);
                command.env("RUSTC", SYSTEM_RUSTC);
                command
            }
        };
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// `cargo clippy` of this toolchain, if it has one.
    pub fn clippy(&self) -> Option<Command> {
        let mut command = self.cargo();
        match &self.origin {
            Origin::Rustup(name) => {
                answer(scrubbed("rustup").args(["run", name, "cargo-clippy", "--version"]))?;
            }
            Origin::System => {
                if !Path::new(SYSTEM_CLIPPY).is_file() {
                    return None;
                }
                // Cargo looks its subcommands up on PATH, where rustup's clippy may come first.
                command.env("PATH", path_with_system_first());
            }
        }
        command.arg("clippy");
        Some(command)
    }
}

impl std::fmt::Display for Toolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.origin {
            Origin::Rustup(name) => write!(f, "{} (rustup {name}, LLVM {})", self.version, self.llvm),
            Origin::System => write!(f, "{} ({SYSTEM_RUSTC}, LLVM {})", self.version, self.llvm),
        }
    }
}

impl Origin {
    fn rustc(&self) -> Command {
        match self {
            Self::Rustup(name) => {
                let mut command = scrubbed("rustup");
                command.args(["run", name, "rustc"]);
                command
            }
            Self::System => scrubbed(SYSTEM_RUSTC),
        }
    }
}

fn library_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml")
}

fn path_with_system_first() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from("/usr/bin");
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// What a command prints, if it can be run and succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line of `rustc -vV`, without the commit, and the LLVM's major version.
fn parse_version(verbose: &str) -> Option<(String, u32)> {
    let version = verbose.lines().next()?.split(" (").next()?.to_owned();
    let llvm = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some((version, llvm.split('.').next()?.parse().ok()?))
}

/// Fails early, and in words, when a linker is too old for a compiler.
pub(crate) fn check_llvm(compiler: u32, linker: u32) -> Result<()> {
    if linker < compiler {
        bail!("it was built with LLVM {linker}, and the compiler's LLVM {compiler} is newer");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rustc_version() {
        let verbose = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                       host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(verbose), Some(("rustc 1.96.0".to_owned(), 22)));
        assert_eq!(parse_version("rustc 1.96.0\n"), None);
        assert_eq!(parse_version(""), None);
    }
}
