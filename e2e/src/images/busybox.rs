//! A small userland around Debian's busybox, alone and as the ground of other images.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::archive::Image;
use super::shared_libraries;
use super::tree::Tree;
use crate::{places, process};

const TAG: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2";

pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Users that upstream's tests of security contexts look for.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\n\
    nobody:x:65534:65534:nobody:/:/bin/false\n\
    user-defined-in-image:x:1000:1000::/home:/bin/sh\n";
const GROUP: &str = "root:x:0:\n\
    nogroup:x:65534:\n\
    user-defined-in-image:x:1000:\n\
    group-defined-in-image:x:50000:user-defined-in-image\n";

pub(super) fn image() -> Result<Image> {
    let config: Value = json!({ "Env": [PATH], "Cmd": ["sh"] });
    Ok(Image {
        name: "busybox".to_owned(),
        tags: vec![TAG.to_owned(), "docker.io/library/busybox:latest".to_owned()],
        config,
        tree: ground()?,
    })
}

/// Busybox, its commands, and what the C library reads to look up users and hosts.
pub(super) fn ground() -> Result<Tree> {
    let mut tree = Tree::default();
    for folder in [
        "dev",
        "home",
        "proc",
        "sys",
        "uploads",
        "usr/bin",
        "usr/local/bin",
        "usr/sbin",
        "var/run",
    ] {
        tree.folder(folder, 0o755);
    }
    tree.folder("tmp", 0o1777);
    tree.folder("var/tmp", 0o1777);
    tree.text("etc/passwd", PASSWD);
    tree.text("etc/group", GROUP);
    tree.text("etc/nsswitch.conf", "hosts: files dns\n");
    let busybox = unpacked()?.display().to_string();
    shared_libraries::copy(&mut tree, "bin", &busybox)?;
    let commands = process::output(Command::new(&busybox).arg("--list"))?;
    for command in String::from_utf8_lossy(&commands).lines() {
        if command != "busybox" {
            tree.link(&format!("bin/{command}"), "busybox");
        }
    }
    // `wget -T`, which upstream's tests use, crashes in busybox 1.35.
    shared_libraries::copy(&mut tree, "bin", "wget")?;
    Ok(tree)
}

/// Debian's dynamic busybox: a static one cannot load the libraries that look up names. The package conflicts with
/// `busybox-static`, so it is unpacked and not installed.
fn unpacked() -> Result<PathBuf> {
    let folder = places::root()?.join("images").join("busybox");
    let program = folder.join("bin/busybox");
    if program.is_file() {
        return Ok(program);
    }
    let download = tempfile::tempdir().context("making a temporary folder")?;
    let mut apt = Command::new("apt-get");
    // apt's own user may not write to our folder; root fetches instead.
    apt.args(["download", "-q", "-o", "APT::Sandbox::User=root", "busybox"])
        .current_dir(download.path());
    process::run(&mut apt)?;
    let package = std::fs::read_dir(download.path())?
        .next()
        .context("apt-get downloaded nothing")??
        .path();
    process::run(Command::new("dpkg-deb").arg("-x").args([&package, &folder]))?;
    Ok(program)
}
