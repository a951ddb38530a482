//! The network of a cluster: a bridge in a namespace of its own, and namespaces for the control plane and the nodes,
//! each with an `eth0` on it. The machine's own network is not touched.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::plan::{Node, Plan, with_prefix};

/// Where `ip netns` keeps namespaces by name.
pub const NETNS: &str = "/run/netns";

const BRIDGE: &str = "br0";

/// A place at the bridge.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Of the link's end at the bridge.
    pub name: &'a str,
    pub netns: &'a str,
    pub mac: &'a str,
    pub addresses: &'a [IpAddr],
}

impl<'a> Port<'a> {
    #[must_use]
    pub fn of(node: &'a Node) -> Self {
        Self {
            name: &node.name,
            netns: &node.netns,
            mac: &node.mac,
            addresses: &node.addresses,
        }
    }
}

/// A network namespace's file.
#[must_use]
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS).join(name)
}

/// Makes the namespaces and links of a cluster that has none.
///
/// # Errors
/// The kernel refuses something: the error cites `ip`.
pub fn create(plan: &Plan) -> Result<()> {
    create_fabric(plan)?;
    plug(
        plan,
        &Port {
            name: "cp",
            netns: &plan.control_plane_netns(),
            mac: &plan.control_plane_mac(),
            addresses: &plan.control_plane(),
        },
    )?;
    for node in &plan.nodes {
        plug(plan, &Port::of(node))?;
    }
    Ok(())
}

fn create_fabric(plan: &Plan) -> Result<()> {
    let fabric = plan.fabric_netns();
    ip(None, &[format!("netns add {fabric}")])?;
    let mut commands = vec![
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge"),
        format!("link set {BRIDGE} up"),
    ];
    commands.extend(plan.fabric().into_iter().map(|address| add(address, BRIDGE)));
    commands.extend(
        plan.world()
            .into_iter()
            .map(|address| format!("address add {address} dev lo")),
    );
    ip(Some(&fabric), &commands)?;
    inside(&fabric, forward)?
}

/// Makes a namespace with an `eth0` on the bridge.
///
/// # Errors
/// As [`create`].
pub fn plug(plan: &Plan, port: &Port<'_>) -> Result<()> {
    let fabric = plan.fabric_netns();
    let Port {
        name,
        netns,
        mac,
        addresses,
    } = port;
    ip(
        None,
        &[
            format!("netns add {netns}"),
            format!("link add {name} netns {fabric} type veth peer name eth0 address {mac} netns {netns}"),
        ],
    )?;
    ip(Some(&fabric), &[format!("link set {name} master {BRIDGE} up")])?;
    let mut commands = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    commands.extend(addresses.iter().map(|address| add(*address, "eth0")));
    commands.extend(
        plan.fabric()
            .into_iter()
            .map(|gateway| format!("route add default via {gateway} dev eth0")),
    );
    ip(Some(netns), &commands)
}

/// Undoes [`plug`].
///
/// # Errors
/// As [`create`].
pub fn unplug(plan: &Plan, port: &Port<'_>) -> Result<()> {
    // Its links go some time after a namespace: the name of the end at the bridge would be taken for a while.
    ip(
        Some(&plan.fabric_netns()),
        &[format!("link delete {}", port.name)],
    )?;
    remove(port.netns)
}

/// Routes the pods of a node to it, in a namespace that takes no part in the pod network.
///
/// # Errors
/// As [`create`].
pub fn route(netns: &str, pods: &str, node: IpAddr) -> Result<()> {
    ip(
        Some(netns),
        &[format!("route replace {pods} via {node} dev eth0")],
    )
}

/// Makes the namespace that the calling thread is in forward between its interfaces.
///
/// # Errors
/// A setting cannot be written.
pub fn forward() -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ] {
        let path = Path::new("/proc/sys").join(key);
        fs::write(&path, value).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Names of the namespaces of a cluster that exist.
///
/// # Errors
/// Their folder cannot be read.
pub fn existing(prefix: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(NETNS) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| belongs(name, prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// A name such as `weir-local-node1`, and not `weir-local-two-node1`.
fn belongs(name: &str, prefix: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let number = rest.strip_prefix("node").unwrap_or_default();
    matches!(rest, "fabric" | "cp") || number.parse::<u8>().is_ok()
}

/// Removes a namespace, and its links with it.
///
/// # Errors
/// As [`create`].
pub fn remove(netns: &str) -> Result<()> {
    ip(None, &[format!("netns delete {netns}")])
}

/// Runs `work` on a thread inside a namespace.
///
/// # Errors
/// There is no such namespace.
pub fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = netns_path(netns);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let entered = move || setns(file, CloneFlags::CLONE_NEWNET).map(|()| work());
    match thread::scope(|scope| scope.spawn(entered).join()) {
        Ok(result) => result.with_context(|| format!("entering {}", path.display())),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn add(address: IpAddr, device: &str) -> String {
    // Nobody else can have the address, so nobody need be asked (RFC 4862, 5.4).
    let flags = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {} dev {device}{flags}", with_prefix(address))
}

/// Runs commands of ip(8), all at once.
fn ip(netns: Option<&str>, commands: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("starting ip")?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(commands.join("\n").as_bytes())
            .context("writing to ip")?;
    }
    let output = child.wait_with_output().context("waiting for ip")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let place = netns.map(|netns| format!(" in {netns}")).unwrap_or_default();
        bail!("ip: {}: {}{place}", commands.join("; "), said.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_whose_names_begin_alike_are_told_apart() {
        let names = [
            "weir-a-fabric",
            "weir-a-cp",
            "weir-a-node12",
            "weir-a-b-node1",
            "weir-a-b-cp",
            "weir-ab-cp",
            "weir-a-node",
            "weir-a",
        ];
        let ours: Vec<_> = names.into_iter().filter(|name| belongs(name, "weir-a")).collect();
        assert_eq!(ours, ["weir-a-fabric", "weir-a-cp", "weir-a-node12"]);
    }
}
