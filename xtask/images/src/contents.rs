//! What is in the images.

use serde_json::json;
use weir_e2e::images::archive::Image;
use weir_e2e::images::tree::Tree;

use crate::build::Binaries;

/// Of the workspace, like 0.1.0.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A user that no other image's files belong to, as `nobody` might.
const OPERATOR_USER: &str = "65532:65532";

/// The images, under the tag and under the version.
pub(crate) fn images(binaries: &Binaries, tag: &str) -> [Image; 2] {
    [agent(binaries, tag), operator(binaries, tag)]
}

/// With the plugin in it, which the agent puts onto its node.
fn agent(binaries: &Binaries, tag: &str) -> Image {
    let mut tree = root();
    tree.copy("usr/bin/weir-agent", &binaries.agent, 0o755);
    tree.copy("usr/bin/weir-cni", &binaries.cni, 0o755);
    // Container runtimes name network namespaces by /var/run, which is a link on their hosts.
    tree.link("var/run", "../run");
    Image {
        name: "agent".to_owned(),
        tags: tags("weir/agent", tag),
        config: json!({
            "Entrypoint": ["/usr/bin/weir-agent"],
            "Env": ["PATH=/usr/bin"],
            "Labels": labels("weir-agent"),
        }),
        tree,
    }
}

fn operator(binaries: &Binaries, tag: &str) -> Image {
    let mut tree = root();
    tree.copy("usr/bin/weir-operator", &binaries.operator, 0o755);
    Image {
        name: "operator".to_owned(),
        tags: tags("weir/operator", tag),
        config: json!({
            "User": OPERATOR_USER,
            "Entrypoint": ["/usr/bin/weir-operator"],
            "Env": ["PATH=/usr/bin"],
            "Labels": labels("weir-operator"),
        }),
        tree,
    }
}

/// What the C library asks for, whatever it is.
fn root() -> Tree {
    let mut tree = Tree::default();
    tree.folder("tmp", 0o1777);
    tree.text("etc/nsswitch.conf", "hosts: files dns\n");
    tree.text(
        "etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    );
    tree.text("etc/group", "root:x:0:\nnonroot:x:65532:\n");
    tree
}

fn tags(repository: &str, tag: &str) -> Vec<String> {
    let mut tags: Vec<String> = [tag, VERSION]
        .iter()
        .map(|tag| format!("docker.io/{repository}:{tag}"))
        .collect();
    tags.dedup();
    tags
}

fn labels(title: &str) -> serde_json::Value {
    json!({
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "Apache-2.0",
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_image_holds_its_programs_and_runs_as_who_it_should() {
        let dir = tempfile::tempdir().expect("a folder");
        let binary = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, name).expect("written");
            path
        };
        let binaries = Binaries {
            agent: binary("a"),
            cni: binary("c"),
            operator: binary("o"),
        };
        let [agent, operator] = images(&binaries, "dev");
        assert_eq!(
            agent.tags,
            [
                "docker.io/weir/agent:dev",
                &format!("docker.io/weir/agent:{VERSION}")
            ]
        );
        assert_eq!(agent.config.get("User"), None);
        assert_eq!(operator.config["User"], "65532:65532");
        for path in ["usr/bin/weir-agent", "usr/bin/weir-cni", "var/run"] {
            assert!(agent.tree.contains(path), "{path}");
            assert!(!operator.tree.contains(path), "{path}");
        }
        assert!(operator.tree.contains("usr/bin/weir-operator"));
        assert_eq!(images(&binaries, VERSION)[0].tags.len(), 1);
    }
}
