//! The certificates, keys and kubeconfigs of one control plane, as files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::kubeconfig::kubeconfig;
use crate::pki::{Authority, Identity, MASTERS, SigningKey};
use crate::places;

/// Names that pods know the API server by.
const API_SERVER_NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A folder of certificates, and the CA that issues more.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    server: String,
    authority: Authority,
}

impl Certificates {
    /// Makes everything that an API server needs, and `admin.kubeconfig`, in a folder. `server` is the URL that
    /// clients reach it at, `addresses` are all that it answers at.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(folder: &Path, server: &str, addresses: &[IpAddr]) -> Result<Self> {
        places::create_dir(folder, 0o700)?;
        let this = Self {
            folder: folder.to_owned(),
            server: server.to_owned(),
            authority: Authority::new("weir-cluster")?,
        };
        this.write("ca.crt", this.authority.certificate())?;
        this.write("ca.key", this.authority.key())?;
        this.front_proxy()?;
        let tokens = SigningKey::new()?;
        this.write("sa.pub", tokens.public)?;
        this.write("sa.key", tokens.private)?;
        this.issue("apiserver", "kube-apiserver", None, API_SERVER_NAMES, addresses)?;
        let client = "apiserver-kubelet-client";
        this.issue(client, "kube-apiserver-kubelet-client", Some(MASTERS), &[], &[])?;
        this.client("admin", "kubernetes-admin", Some(MASTERS))?;
        Ok(this)
    }

    /// Writes `FILE.kubeconfig` for a user. Its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.authority.issue(user, group, &[], &[])?;
        self.kubeconfig(file, &identity)
    }

    /// Writes `NODE.crt`, `NODE.key` and `NODE.kubeconfig`: what a kubelet serves with, and is known by.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn node(&self, node: &str, addresses: &[IpAddr]) -> Result<()> {
        let user = format!("system:node:{node}");
        let identity = self.issue(node, &user, Some("system:nodes"), &[node], addresses)?;
        self.kubeconfig(node, &identity).map(|_| ())
    }

    /// Aggregated API servers tell a request that the API server has authenticated by a CA of its own.
    fn front_proxy(&self) -> Result<()> {
        let authority = Authority::new("weir-cluster-front-proxy")?;
        let client = authority.issue("front-proxy-client", None, &[], &[])?;
        self.write("front-proxy-ca.crt", authority.certificate())?;
        self.write_identity("front-proxy-client", &client)
    }

    fn issue(
        &self,
        file: &str,
        name: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity> {
        let identity = self.authority.issue(name, group, names, addresses)?;
        self.write_identity(file, &identity)?;
        Ok(identity)
    }

    fn write_identity(&self, file: &str, identity: &Identity) -> Result<()> {
        self.write(&format!("{file}.crt"), &identity.certificate)?;
        self.write(&format!("{file}.key"), &identity.key)
    }

    fn kubeconfig(&self, file: &str, identity: &Identity) -> Result<PathBuf> {
        let content = kubeconfig(&self.server, &self.authority.certificate(), identity);
        let name = format!("{file}.kubeconfig");
        self.write(&name, content.to_string())?;
        Ok(self.folder.join(name))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        places::write(&self.folder.join(name), content)
    }
}
