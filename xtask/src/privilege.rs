//! Root, for what only root may do: install packages, load eBPF programs, make network namespaces.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    // The owner of a process's /proc entry is its effective user (proc(5)).
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// The program, run as root: as it is, or through sudo.
///
/// # Errors
/// We are not root and there is no sudo.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    require_sudo(program)?;
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Makes cargo run what it builds as root, while the build itself stays with the user who started it.
///
/// # Errors
/// We are not root and there is no sudo; or the compiler does not say for which host it builds.
pub(crate) fn run_built_programs_as_root(cargo: &mut Command) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    require_sudo("what cargo builds")?;
    println!("not root: the programs that this builds run under `sudo -E`");
    let rustc = process::answer(Command::new("rustc").arg("-vV")).context("`rustc -vV` failed")?;
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` names no host")?;
    cargo.env(runner_variable(host), "sudo -E");
    Ok(())
}

fn require_sudo(what: &str) -> Result<()> {
    if process::on_path("sudo").is_none() {
        bail!("{what} must run as root, and there is no sudo here: start again as root");
    }
    Ok(())
}

/// The variable by which cargo's configuration takes a runner for a target.
fn runner_variable(target: &str) -> String {
    format!(
        "CARGO_TARGET_{}_RUNNER",
        target.replace('-', "_").to_ascii_uppercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runner_variable_is_spelled_as_cargo_reads_it() {
        let expected = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
        assert_eq!(runner_variable("x86_64-unknown-linux-gnu"), expected);
    }
}
