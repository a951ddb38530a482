//! The program that keeps a pod's namespaces, from Kubernetes' source.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::archive::Image;
use super::tree::Tree;
use crate::recipes::KUBERNETES;
use crate::{build, places, process};

/// As upstream's tests of this version name it (`test/utils/image/manifest.go`).
pub(super) const TAG: &str = "registry.k8s.io/pause:3.10.2";

pub(super) fn image() -> Result<Image> {
    let mut tree = Tree::default();
    tree.copy("pause", compiled()?, 0o755);
    Ok(Image {
        name: "pause".to_owned(),
        tags: vec![TAG.to_owned()],
        config: json!({ "User": "65535:65535", "Entrypoint": ["/pause"] }),
        tree,
    })
}

fn compiled() -> Result<PathBuf> {
    let program = places::root()?
        .join("images")
        .join(format!("pause-{}", KUBERNETES.version));
    if !program.is_file() {
        let fresh = program.with_extension("new");
        let source = build::source(&KUBERNETES)?.join("build/pause/linux/pause.c");
        let mut command = Command::new("cc");
        command
            .args(["-Os", "-Wall", "-static", "-s", "-DVERSION=weir", "-o"])
            .args([&fresh, &source]);
        process::run(&mut command)?;
        fs::rename(&fresh, &program)?;
    }
    Ok(program)
}
