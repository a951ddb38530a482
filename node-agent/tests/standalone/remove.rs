//! `weir-agent remove`: the node is as it was without Weir.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::node::{Node, PORT, SERVICE_PORT};
use crate::policy::{allow_ingress, network_policy};
use crate::probe::{echo, expect, expect_at_once, tcp, udp};

fn remove(node: &Node) -> Result<Output> {
    let mut command: Command = node.end.place.command(env!("CARGO_BIN_EXE_weir-agent"));
    command
        .arg("remove")
        .arg("--bpffs")
        .arg(node.testbed.bpffs())
        .arg("--state-dir")
        .arg(node.agent.state_directory());
    command.output().context("weir-agent remove")
}

/// Programs of ours on interfaces of the node and in its control groups, as `bpftool` sees them.
fn attached(node: &Node) -> Result<String> {
    let run = |arguments: &[&str]| -> Result<String> {
        let output = node
            .end
            .place
            .command("bpftool")
            .args(arguments)
            .output()
            .context("bpftool")?;
        ensure!(
            output.status.success(),
            "bpftool {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let net = run(&["net", "show"])?;
    let of_interfaces = net
        .lines()
        .filter(|line| line.contains("prog_id") || line.contains(" id "));
    let cgroup = run(&["cgroup", "show", &node.end.place.cgroup().display().to_string()])?;
    Ok(of_interfaces
        .chain(cgroup.lines().filter(|line| line.contains("cgroup_inet")))
        .collect::<Vec<_>>()
        .join("\n"))
}

fn pins(node: &Node) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(node.testbed.bpffs())?.flatten();
    // What some kernels put into every file system of this kind has a dot in its name.
    Ok(entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.contains('.'))
        .collect())
}

fn removed_for_good(test: &str, arguments: &[&str]) -> Result<()> {
    let mut node = Node::with(test, arguments)?;
    let (client, other, server) = (
        node.pod("client", 1)?,
        node.pod("other", 2)?,
        node.pod("server", 3)?,
    );
    let service = node.service("service", 10, &[&server])?;
    network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
    let in_force = [
        tcp(&client, &server, PORT).answered(),
        tcp(&other, &server, PORT).silent(),
        tcp(&client, &service, SERVICE_PORT).by_socket().answered(),
        tcp(&client, &service, SERVICE_PORT).answered(),
    ];
    expect(&in_force)?;

    // Not while an agent runs.
    let output = remove(&node)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && said.contains("another agent runs"),
        "{said}"
    );
    expect_at_once(&in_force)?;
    ensure!(!attached(&node)?.is_empty() && !pins(&node)?.is_empty());

    node.agent.kill9()?;
    for _ in 0..2 {
        let output = remove(&node)?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!((attached(&node)?, pins(&node)?), (String::new(), Vec::new()));
        // The node routes, as soon as it has found its neighbours, and nobody stands in the way. Services are nowhere.
        expect(&[
            tcp(&client, &server, PORT).answered(),
            tcp(&other, &server, PORT).answered(),
            udp(&other, &server, PORT).answered(),
            echo(&other, &server).answered(),
            tcp(&node.outside, &server, PORT).answered(),
            tcp(&server, &node.world, PORT).answered(),
            tcp(&client, &service, SERVICE_PORT).by_socket().silent(),
        ])?;
    }
    // And back again, from nothing.
    node.agent.start_again()?;
    expect(&in_force)?;
    node.end()
}

#[test]
fn everything_goes_and_traffic_stays() -> Result<()> {
    removed_for_good("remove", &[])
}

#[test]
fn everything_goes_with_clsact_too() -> Result<()> {
    removed_for_good("remove-clsact", &["--clsact"])
}
