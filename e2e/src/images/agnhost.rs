//! Upstream's agnhost, with the tools that its own image installs.

use anyhow::Result;
use serde_json::json;

use super::archive::Image;
use super::{busybox, shared_libraries};
use crate::build;
use crate::recipes::{self, KUBERNETES};

/// As upstream's tests of this version name it (`test/utils/image/manifest.go`).
pub(super) const TAG: &str = "registry.k8s.io/e2e-test-images/agnhost:2.66.1";

/// Images that some of upstream's tests use for a tool that agnhost's has too.
const OTHER_TAGS: &[&str] = &[
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1",
    "registry.k8s.io/build-image/distroless-iptables:v0.9.9",
];

/// The real ones in place of busybox's.
const TOOLS: &[&str] = &[
    "bash",
    "conntrack",
    "curl",
    "dig",
    "getent",
    "iperf",
    "ip",
    "ipcs",
    "nc",
    "nslookup",
    "socat",
    "ss",
    "wget",
];

pub(super) fn image() -> Result<Image> {
    let mut tree = busybox::ground()?;
    for tool in TOOLS {
        shared_libraries::copy(&mut tree, "bin", tool)?;
    }
    tree.link("usr/local/bin/iperf", "/bin/iperf");
    tree.link("usr/bin/iperf", "/bin/iperf");
    tree.copy("agnhost", build::path(&recipes::AGNHOST)?, 0o755);
    tree.link("agnhost-2", "agnhost");
    // Some of upstream's tests run a DNS server in this image.
    tree.copy("coredns", build::path(&recipes::COREDNS_SERVER)?, 0o755);
    let porter = build::source(&KUBERNETES)?.join("test/images/agnhost/porter");
    for file in ["localhost.crt", "localhost.key"] {
        tree.copy(file, porter.join(file), 0o644);
    }
    let ports = ["80/tcp", "5000/tcp", "8080/tcp", "8081/tcp", "9376/tcp"];
    let exposed: serde_json::Map<_, _> = ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
    Ok(Image {
        name: "agnhost".to_owned(),
        tags: std::iter::once(&TAG)
            .chain(OTHER_TAGS)
            .map(|tag| (*tag).to_owned())
            .collect(),
        config: json!({
            "Env": [busybox::PATH],
            "Entrypoint": ["/agnhost"],
            "Cmd": ["pause"],
            "ExposedPorts": exposed,
        }),
        tree,
    })
}
