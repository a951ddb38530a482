//! A test that fails in the middle leaves nothing behind.

#![expect(clippy::print_stdout, reason = "a test that runs itself again reads this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::node::{Node, PORT, SERVICE_PORT};
use crate::policy::{deny_all, network_policy};
use crate::probe::{expect, tcp};

/// Set for the process that is to fail: this program again, asked for one test alone.
const FAILS: &str = "WEIR_TEST_FAILS";
const ANNOUNCE: &str = "leftovers: ";

#[test]
fn a_failing_test_leaves_nothing_behind() -> Result<()> {
    if std::env::var_os(FAILS).is_some() {
        return fail_with_everything_there();
    }
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--exact",
            "leftovers::a_failing_test_leaves_nothing_behind",
            "--nocapture",
        ])
        .env(FAILS, "1")
        .stderr(Stdio::null());
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        !output.status.success() && text.contains("1 failed"),
        "it did not fail: {text}"
    );
    let announced = text
        .lines()
        .find_map(|line| line.split_once(ANNOUNCE))
        .context("it said nothing")?
        .1;
    let (id, things) = announced.split_once(' ').context("an identity")?;
    let things: Vec<&str> = things.split(' ').collect();
    ensure!(things.len() >= 10, "{things:?}");
    let left: Vec<String> = traces(id)?
        .into_iter()
        .chain(
            things
                .iter()
                .filter(|path| Path::new(path).exists())
                .map(ToString::to_string),
        )
        .collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// Announces all that there is, and panics.
fn fail_with_everything_there() -> Result<()> {
    let node = Node::start("leftovers")?;
    let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
    let service = node.service("service", 10, &[&server])?;
    network_policy(&node.manifests, "unrelated", &deny_all("nobody"))?;
    expect(&[
        tcp(&client, &service, SERVICE_PORT).by_socket().answered(),
        tcp(&client, &server, PORT).answered(),
    ])?;
    let mut things = vec![
        PathBuf::from(format!("/proc/{}", node.agent.pid())),
        node.testbed.directory().into(),
        node.end.place.cgroup().into(),
    ];
    for end in [&node.end, &client, &server, &node.outside] {
        things.extend([end.place.netns_path(), end.place.cgroup().into()]);
    }
    for entry in fs::read_dir(node.testbed.bpffs())?.flatten() {
        things.push(entry.path());
    }
    let things: Vec<String> = things.iter().map(|path| path.display().to_string()).collect();
    println!("\n{ANNOUNCE}{} {}", node.testbed.id(), things.join(" "));
    assert!(things.is_empty(), "on purpose");
    node.end()
}

/// Whatever has the testbed's identity in its name: files, mounts, processes.
fn traces(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in ["/run", "/run/netns"] {
        found.extend(
            fs::read_dir(directory)?
                .flatten()
                .map(|entry| entry.path().display().to_string()),
        );
    }
    found.extend(
        fs::read_to_string("/proc/self/mounts")?
            .lines()
            .map(str::to_string),
    );
    for process in fs::read_dir("/proc")?.flatten() {
        // What has ended and was not waited for has a group still, but no program.
        if fs::read_link(process.path().join("exe")).is_ok() {
            found.extend(
                fs::read_to_string(process.path().join("cgroup"))
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_string),
            );
        }
    }
    found.retain(|trace| trace.contains(id));
    Ok(found)
}
