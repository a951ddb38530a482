//! The API server's files: a directory that is gone at the end, or one that keeps what was loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use weir_e2e::api_server::ApiServer;

use super::api;
use super::load::load;
use super::shape::Shape;
use crate::report::progress;

#[derive(Debug)]
pub(super) struct Store {
    /// Of the API server.
    folder: PathBuf,
    /// etcd's files as they were after loading, if they are kept.
    loaded: Option<PathBuf>,
    _temporary: TempDir,
}

impl Store {
    pub(super) fn open(keep: Option<&Path>, shape: &Shape) -> Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("weir-api-scale-")
            .tempdir()
            .context("make a directory")?;
        let Shape {
            nodes,
            pods,
            policies,
        } = shape;
        Ok(Self {
            folder: temporary.path().join("server"),
            loaded: keep.map(|keep| keep.join(format!("{nodes}-{pods}-{policies}"))),
            _temporary: temporary,
        })
    }

    /// What the operator logs.
    pub(super) fn log(&self) -> PathBuf {
        let beside = self.loaded.as_deref().unwrap_or(&self.folder);
        beside.with_extension("operator.log")
    }

    /// Starts an API server that holds everything that is loaded.
    pub(super) async fn start(&self, shape: &Shape) -> Result<ApiServer> {
        let Some(loaded) = self.loaded.as_deref() else {
            return self.fill(shape).await;
        };
        if !loaded.is_dir() {
            drop(self.fill(shape).await?);
            copy(&self.data(), loaded)?;
        }
        progress(&format!("api-scale: loaded objects are in {}", loaded.display()));
        fs::create_dir_all(&self.folder)?;
        if self.data().exists() {
            fs::remove_dir_all(self.data()).context("remove etcd's files")?;
        }
        copy(loaded, &self.data())?;
        ApiServer::start_in(&self.folder)
    }

    async fn fill(&self, shape: &Shape) -> Result<ApiServer> {
        let server = ApiServer::start_in(&self.folder)?;
        let client = api::client(server.kubeconfig()).await?;
        load(&client, shape).await?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("etcd")
    }
}

/// As a whole or not at all.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a directory in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let partial = to.with_extension("partial");
    let status = Command::new("cp")
        .arg("-a")
        .arg("--")
        .args([from, &partial])
        .status()
        .context("run cp")?;
    ensure!(
        status.success(),
        "cp {} {}: {status}",
        from.display(),
        partial.display()
    );
    fs::rename(&partial, to).with_context(|| format!("rename {}", partial.display()))
}
