//! The node's interfaces to the network, where nobody names them: those with a default route, and those that have one
//! of the node's addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::link::LinkAttribute;

use crate::workloads::connection;

/// Names of the uplinks.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub fn uplinks(node_addresses: &[IpAddr]) -> Result<BTreeSet<String>> {
    let read = |family: &str| -> Result<String> {
        let path = Path::new("/proc/thread-self/net").join(family);
        match std::fs::read_to_string(&path) {
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            text => text.with_context(|| format!("reading {}", path.display())),
        }
    };
    let mut names = default_routes_v4(&read("route")?);
    names.extend(default_routes_v6(&read("ipv6_route")?));
    for interface in getifaddrs().context("reading the node's addresses")? {
        let ip = interface.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        if ip.is_some_and(|ip| node_addresses.contains(&ip)) {
            names.insert(interface.interface_name);
        }
    }
    names.remove("lo");
    Ok(names)
}

/// The smallest MTU of these interfaces, in bytes without the Ethernet header; `None` where there is none of them.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub async fn smallest_mtu(names: &BTreeSet<String>) -> Result<Option<u32>> {
    let handle = connection()?;
    let mut links = handle.link().get().execute();
    let mut smallest = None;
    while let Some(link) = links.try_next().await.context("listing interfaces")? {
        let mut name = None;
        let mut mtu = None;
        for attribute in link.attributes {
            if let LinkAttribute::IfName(text) = attribute {
                name = Some(text);
            } else if let LinkAttribute::Mtu(bytes) = attribute {
                mtu = Some(bytes);
            }
        }
        if name.is_some_and(|name| names.contains(&name)) {
            smallest = smallest.into_iter().chain(mtu).min();
        }
    }
    Ok(smallest)
}

/// Of `/proc/net/route`: interface, destination, gateway, flags, reference count, use, metric, mask.
fn default_routes_v4(text: &str) -> BTreeSet<String> {
    let lines = text.lines().skip(1).map(|line| line.split_whitespace());
    lines
        .filter_map(|fields| {
            let fields: Vec<&str> = fields.collect();
            let is_default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
            is_default.then(|| fields[0].to_owned())
        })
        .collect()
}

/// Of `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, metric, reference count, use,
/// flags, interface. The table's last resort is a default route by `lo`.
fn default_routes_v6(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.split_whitespace());
    lines
        .filter_map(|fields| {
            let fields: Vec<&str> = fields.collect();
            let is_default = fields.first()?.bytes().all(|digit| digit == b'0') && *fields.get(1)? == "00";
            is_default.then(|| fields.get(9).map(|name| (*name).to_owned()))?
        })
        .filter(|name| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                  half\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(default_routes_v4(v4), BTreeSet::from(["eth0".to_owned()]));
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_routes_v6(&v6), BTreeSet::from(["eth2".to_owned()]));
        assert_eq!(default_routes_v4(""), BTreeSet::new());
        assert_eq!(default_routes_v6("x\n"), BTreeSet::new());
    }
}
