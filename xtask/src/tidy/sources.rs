//! Reads what the checks look at: the files that git knows or would take, and the crates that cargo knows.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::checkout::Checkout;
use crate::process;

/// A text file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Relative to the root of the checkout, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// A crate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) licence: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Of the tree itself, not of a registry.
    pub(super) ours: bool,
    /// Not for tests only.
    pub(super) shipped: bool,
}

/// Text files that are tracked, or are neither tracked nor ignored. Files that are not UTF-8 are no text.
pub(super) fn sources(checkout: &Checkout) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(checkout.root());
    let listed = process::answer(&mut git)
        .context("`git ls-files` failed: tidy needs git, and a git checkout to look at")?;
    let mut sources = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let file = checkout.root().join(path);
        // Git also lists files that were deleted from the tree but not from its index.
        if !file.is_file() {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("reading {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source {
                path: path.to_owned(),
                text,
            });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// The crates of the workspace, of `bpf/` and of `fuzz/`, with the dependencies that their manifests name.
pub(super) fn crates(checkout: &Checkout) -> Result<Vec<Crate>> {
    let mut crates = Vec::new();
    for manifest in ["Cargo.toml", "bpf/Cargo.toml", "fuzz/Cargo.toml"] {
        let metadata = MetadataCommand::new()
            .manifest_path(checkout.root().join(manifest))
            .no_deps()
            .exec()
            .with_context(|| format!("`cargo metadata` on {manifest}"))?;
        crates.extend(metadata.packages.iter().map(read));
    }
    Ok(crates)
}

fn read(package: &Package) -> Crate {
    let dependencies = package.dependencies.iter().map(|dependency| Dependency {
        name: dependency.name.clone(),
        ours: dependency.path.is_some(),
        shipped: dependency.kind != DependencyKind::Development,
    });
    Crate {
        name: package.name.to_string(),
        licence: package.license.clone(),
        dependencies: dependencies.collect(),
    }
}
