//! The cluster's DNS server.

use anyhow::Result;
use serde_json::json;

use super::archive::Image;
use super::tree::Tree;
use crate::build;
use crate::recipes::{COREDNS, COREDNS_SERVER};

pub(super) fn image() -> Result<Image> {
    let mut tree = Tree::default();
    tree.copy("coredns", build::path(&COREDNS_SERVER)?, 0o755);
    tree.folder("etc", 0o755);
    tree.folder("tmp", 0o1777);
    Ok(Image {
        name: "coredns".to_owned(),
        tags: vec![format!("registry.k8s.io/coredns/coredns:{}", COREDNS.version)],
        config: json!({ "Entrypoint": ["/coredns"], "WorkingDir": "/" }),
        tree,
    })
}
