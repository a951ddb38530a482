//! Compiles and links the objects.

use std::env;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::{Linker, Toolchain};

/// One eBPF object: an ELF file that the agent loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// The name of its `[[bin]]` in `bpf/Cargo.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// Where the sources lie, and where cargo builds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfTree {
    root: PathBuf,
    target: PathBuf,
}

impl BpfTree {
    /// The tree of the checkout at `root`.
    ///
    /// The target directory is one of its own: the cargo that runs us holds the lock on the workspace's. It is
    /// the same for every profile and for xtask, so that all share one build.
    pub fn new(root: &Path) -> Self {
        let workspace_target = env::var_os("CARGO_TARGET_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .unwrap_or_else(|| root.join("target"));
        Self {
            root: root.to_owned(),
            target: workspace_target.join("bpf-build"),
        }
    }

    /// The folder of the eBPF programs: a workspace of its own.
    pub fn programs(&self) -> PathBuf {
        self.root.join("bpf")
    }

    /// The target directory of `bpf/`.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What the objects are made from: a build script reruns when any of these changes.
    pub fn inputs(&self) -> Vec<PathBuf> {
        [
            "bpf/.cargo/config.toml",
            "bpf/Cargo.lock",
            "bpf/Cargo.toml",
            "bpf/src",
            "crates/abi/Cargo.toml",
            "crates/abi/src",
            "crates/datapath/Cargo.toml",
            "crates/datapath/src",
        ]
        .map(|path| self.root.join(path))
        .to_vec()
    }
}

/// All objects of `bpf/Cargo.toml`, built when they are not up to date; or those of `BPF_OBJ_DIR`. In order of name.
///
/// # Errors
/// No toolchain or linker, a program that does not compile or link, or an empty `BPF_OBJ_DIR`.
pub fn objects(tree: &BpfTree) -> Result<Vec<Object>> {
    let mut objects = match env::var_os("BPF_OBJ_DIR") {
        Some(dir) => prebuilt(Path::new(&dir)).with_context(|| format!("BPF_OBJ_DIR={}", dir.display()))?,
        None => compile(tree)?,
    };
    objects.sort();
    Ok(objects)
}

fn prebuilt(dir: &Path) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if path.is_file() && fs::read(&path)?.starts_with(b"\x7fELF") {
            objects.push(Object {
                name: name.to_owned(),
                path: path.clone(),
            });
        }
    }
    if objects.is_empty() {
        bail!("holds no ELF file");
    }
    Ok(objects)
}

fn compile(tree: &BpfTree) -> Result<Vec<Object>> {
    let toolchain = Toolchain::find()?;
    let linker = Linker::find(toolchain.llvm)?;
    let mut cargo = toolchain.cargo();
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--message-format=json-render-diagnostics",
            "--target-dir",
        ])
        .arg(tree.target())
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker.path)
        // Cargo looks for .cargo/config.toml from here upwards: it names target, flags and build-std.
        .current_dir(tree.programs())
        .stdout(Stdio::piped());
    let mut child = cargo
        .spawn()
        .with_context(|| format!("starting the cargo of {toolchain}"))?;
    let stdout = child.stdout.take().context("cargo's standard output")?;
    let objects = built(stdout);
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "the eBPF programs did not build ({status}), with {toolchain} and {}. \
             The messages of that cargo stand above",
            linker.path.display()
        );
    }
    objects
}

/// The executables that cargo reports.
fn built(stdout: ChildStdout) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message.context("reading cargo's messages")?
            && let Some(executable) = artifact.executable
        {
            objects.push(Object {
                name: artifact.target.name,
                path: executable.into_std_path_buf(),
            });
        }
    }
    if objects.is_empty() {
        bail!("bpf/Cargo.toml has no [[bin]]");
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prebuilt_objects_are_the_elf_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("weir"), b"\x7fELF\x02").expect("write");
        fs::write(dir.path().join("weir.d"), b"weir: src/main.rs").expect("write");
        let expected = Object {
            name: "weir".to_owned(),
            path: dir.path().join("weir"),
        };
        assert_eq!(prebuilt(dir.path()).expect("objects"), vec![expected]);

        fs::remove_file(dir.path().join("weir")).expect("remove");
        assert_eq!(
            prebuilt(dir.path()).expect_err("none").to_string(),
            "holds no ELF file"
        );
    }
}
