//! Finding the programs that are built beside this one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The path of a program of this workspace. The variable `WEIR_AGENT` (for `weir-agent`, and so on) says
/// where it is; else it is looked for where the running program is, then in the other profile's directory.
pub fn program(name: &str) -> Result<PathBuf> {
    let variable = name.to_uppercase().replace('-', "_");
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable}: {} is not a file", path.display());
        }
        return Ok(path);
    }
    let this = std::env::current_exe().context("the running program")?;
    let candidates = candidates(&this, name);
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().with_context(|| {
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "no {name} at {}: build it with `cargo build --bin {name}`, or set {variable}",
            places.join(", ")
        )
    })
}

/// A program is in `target/PROFILE`, a test in `target/PROFILE/deps`.
fn candidates(this: &Path, name: &str) -> Vec<PathBuf> {
    let profile = this
        .ancestors()
        .skip(1)
        .find(|dir| dir.file_name().is_some_and(|dir| dir != "deps"));
    let Some(profile) = profile else { return Vec::new() };
    let mut directories = vec![profile.to_path_buf()];
    directories.extend(
        ["debug", "release"]
            .iter()
            .map(|other| profile.with_file_name(other)),
    );
    directories.dedup();
    directories.into_iter().map(|dir| dir.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_test_and_beside_a_program() {
        let expected: Vec<PathBuf> = ["/t/release/x", "/t/debug/x", "/t/release/x"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(candidates(Path::new("/t/release/deps/test-1"), "x"), expected);
        assert_eq!(candidates(Path::new("/t/release/demo"), "x"), expected);
    }
}
