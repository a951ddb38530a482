//! Helm, compiled once into the cache outside of the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use weir_bpf_build::cache;

use crate::process;

const VERSION: &str = "3.22.0";

/// Minor version of the Kubernetes that charts are rendered for where no cluster is asked.
const KUBERNETES_MINOR: &str = "37";

/// Whether [`ensure`] has what it takes.
///
/// # Errors
/// There is no cache.
pub(crate) fn can_be_had() -> Result<bool> {
    Ok(program(&root()?).is_file() || process::on_path("go").is_some())
}

/// The program, compiled when the cache has none.
///
/// # Errors
/// It does not compile, or there is no `go` on `PATH`.
pub(crate) fn ensure() -> Result<PathBuf> {
    let root = root()?;
    let program = program(&root);
    if !program.is_file() {
        println!("compiling helm {VERSION}: two to five minutes, once");
        compile(&root, &program).context("compiling helm")?;
    }
    Ok(program)
}

fn root() -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("helm-{VERSION}")))
}

fn program(root: &Path) -> PathBuf {
    root.join("bin/helm")
}

fn compile(root: &Path, program: &Path) -> Result<()> {
    if process::on_path("go").is_none() {
        bail!("there is no `go` on PATH");
    }
    fs::create_dir_all(root.join("bin")).with_context(|| format!("creating {}", root.display()))?;
    let module = root.join("go.mod");
    let text = format!("module weir.invalid/helm\n\ngo 1.24\n\nrequire helm.sh/helm/v3 v{VERSION}\n");
    fs::write(&module, text).with_context(|| format!("writing {}", module.display()))?;
    // Nobody finds a program that is half-written.
    let fresh = program.with_extension("new");
    let settings = format!(
        "-s -w -X helm.sh/helm/v3/internal/version.version=v{VERSION} \
         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={KUBERNETES_MINOR}"
    );
    let mut command = Command::new("go");
    command
        .current_dir(root)
        .args([
            "build",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &settings,
            "-o",
        ])
        .arg(&fresh)
        .arg("helm.sh/helm/v3/cmd/helm")
        .env("CGO_ENABLED", "0");
    process::run(&mut command)?;
    fs::rename(&fresh, program).with_context(|| format!("renaming {}", fresh.display()))
}
