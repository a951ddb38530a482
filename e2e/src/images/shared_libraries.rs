//! Programs of this machine in an image, with the shared libraries that they need.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::tree::Tree;

/// Puts a program of this machine, found on `PATH` unless it has a path, into `FOLDER/NAME` of an image.
///
/// # Errors
/// It is not installed here.
pub(super) fn copy(tree: &mut Tree, folder: &str, program: &str) -> Result<()> {
    let found = find(program).with_context(|| {
        format!("{program} goes into an image and is not installed here: `cargo xtask cluster` installs it on Debian")
    })?;
    let name = Path::new(program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let file = resolve(&found)?;
    tree.copy(&format!("{folder}/{name}"), &file, 0o755);
    for library in libraries(&file) {
        tree.copy(&library.display().to_string(), resolve(&library)?, 0o755);
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH")?;
    // Root's folders may be missing from the PATH of a task that was started by another user.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn resolve(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("resolving {}", path.display()))
}

/// What ldd(1) says; nothing for a script or a static program, which it refuses.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output();
    output
        .map(|output| parse(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

/// Lines such as `libc.so.6 => /lib/libc.so.6 (0x0)` and `/lib64/ld-linux-x86-64.so.2 (0x0)`.
fn parse(text: &str) -> Vec<PathBuf> {
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x7ffc)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(
            parse(text),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert_eq!(parse("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }
}
