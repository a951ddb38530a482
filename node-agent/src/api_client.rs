//! The connection to the API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

const CONNECT: Duration = Duration::from_secs(5);
/// A watch on which nothing comes is told so about once a minute (bookmarks); on one that is silent for longer nobody
/// is there any more.
const SILENCE: Duration = Duration::from_secs(90);
const WRITE: Duration = Duration::from_secs(10);

/// By the kubeconfig, or as the pod that this is.
///
/// # Errors
///
/// If neither says how to get there. The server is not asked anything yet.
pub async fn api_client(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("using {}", path.display()))?
        }
        None => Config::incluster().context("finding the API server from inside a pod")?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(WRITE);
    Client::try_from(config).context("making the API server's client")
}
