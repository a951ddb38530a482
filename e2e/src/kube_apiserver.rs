//! How etcd and kube-apiserver are started, alone or as part of a control plane.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::build;
use crate::process;
use crate::recipes::{ETCD_SERVER, KUBE_APISERVER, KUBECTL};

/// How long an API server may take to be ready, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports on the loopback interface of one network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdPorts {
    pub client: u16,
    pub peer: u16,
}

/// What differs between one API server and another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder of [`crate::certificates::Certificates`].
    pub certificates: PathBuf,
    pub etcd: EtcdPorts,
    pub port: u16,
    /// `None` where nothing runs that would reach the API server through the Service `kubernetes`.
    pub advertised: Option<IpAddr>,
    /// One CIDR, or two of different families.
    pub services: String,
    /// Whether a controller makes the service accounts that pods need.
    pub with_controllers: bool,
}

/// etcd, with its data in a folder that need not survive the machine.
///
/// # Errors
/// There is no cache.
pub fn etcd(data: &Path, ports: EtcdPorts) -> Result<Vec<String>> {
    let client = format!("http://127.0.0.1:{}", ports.client);
    let peer = format!("http://127.0.0.1:{}", ports.peer);
    Ok(vec![
        build::path(&ETCD_SERVER)?.display().to_string(),
        "--name=weir".to_owned(),
        format!("--data-dir={}", data.display()),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=weir={peer}"),
    ])
}

/// kube-apiserver, authorizing nodes and roles as any cluster does.
///
/// # Errors
/// There is no cache.
pub fn kube_apiserver(settings: &Settings) -> Result<Vec<String>> {
    let mut command = vec![build::path(&KUBE_APISERVER)?.display().to_string()];
    command.extend(arguments(settings));
    Ok(command)
}

fn arguments(settings: &Settings) -> Vec<String> {
    let file = |name: &str| settings.certificates.join(name).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", settings.etcd.client),
        format!("--secure-port={}", settings.port),
        format!("--service-cluster-ip-range={}", settings.services),
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("apiserver-kubelet-client.crt")
        ),
        format!("--kubelet-client-key={}", file("apiserver-kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
        // The control plane's namespace knows no Service addresses: webhooks are called at their endpoints.
        "--enable-aggregator-routing=true".to_owned(),
    ];
    match settings.advertised {
        Some(address) => arguments.push(format!("--advertise-address={address}")),
        None => arguments.extend(
            [
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
            ]
            .map(str::to_owned),
        ),
    }
    if !settings.with_controllers {
        arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    arguments
}

/// Waits until the API server says that it is ready. `alive` fails when it has ended.
///
/// # Errors
/// It is not within two minutes, or has ended.
pub fn wait_until_ready(
    mut kubectl: impl FnMut() -> Result<Command>,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<()> {
    process::wait_for("the API server", PATIENCE, || {
        alive()?;
        let ready = kubectl()?.args(["get", "--raw", "/readyz"]).output()?;
        Ok(ready.status.success().then_some(()))
    })
}

/// kubectl with a kubeconfig, and without the user's own settings.
///
/// # Errors
/// There is no cache.
pub fn kubectl(kubeconfig: &Path) -> Result<Vec<String>> {
    Ok(vec![
        build::path(&KUBECTL)?.display().to_string(),
        format!("--kubeconfig={}", kubeconfig.display()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            certificates: PathBuf::from("/c"),
            etcd: EtcdPorts { client: 1, peer: 2 },
            port: 6443,
            advertised: None,
            services: "10.96.0.0/16".to_owned(),
            with_controllers: false,
        }
    }

    #[test]
    fn alone_it_listens_on_the_loopback_only_and_needs_no_controllers() {
        let alone = arguments(&settings());
        let cluster = arguments(&Settings {
            advertised: Some([172, 31, 0, 10].into()),
            with_controllers: true,
            ..settings()
        });
        let common: Vec<_> = alone.iter().filter(|one| cluster.contains(one)).collect();
        let only = |these: &[String]| -> Vec<String> {
            these
                .iter()
                .filter(|one| !common.contains(one))
                .cloned()
                .collect()
        };
        assert_eq!(
            only(&alone),
            [
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--disable-admission-plugins=ServiceAccount",
            ]
        );
        assert_eq!(only(&cluster), ["--advertise-address=172.31.0.10"]);
    }
}
