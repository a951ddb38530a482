//! A node that joins two pods by the smallest program, and does nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use weir_testbed::topology::{connect_routed, forward};
use weir_testbed::{Place, Testbed};

use super::ifindex;
use crate::floor::{Endpoint, Floor};

const CLIENT: [IpAddr; 2] = addresses(2);
pub(super) const SERVER: [IpAddr; 2] = addresses(3);

#[derive(Debug)]
pub(super) struct FloorNode {
    pub(super) client: Place,
    pub(super) server: Place,
    /// Attached for as long as they are held.
    _programs: Floor,
}

impl FloorNode {
    /// With this program of the bench object at both pods.
    pub(super) fn new(testbed: &Testbed, name: &str, program: &str) -> Result<FloorNode> {
        let node = testbed.host(name)?;
        forward(&node)?;
        let mut programs = Floor::load()?;
        let mut pods = Vec::new();
        for (role, addresses) in [("client", CLIENT), ("server", SERVER)] {
            let pod = testbed.pod(&node, &format!("{name}-{role}"))?;
            connect_routed(&node, &pod, role, &addresses)?;
            let endpoint = Endpoint {
                ifindex: ifindex(&node, role)?,
                pod_mac: mac(&pod.mac("eth0")?)?,
                host_mac: mac(&node.mac(role)?)?,
            };
            for address in addresses {
                programs.add_endpoint(address, endpoint)?;
            }
            pods.push(pod);
        }
        let mut programs = programs;
        for interface in ["client", "server"] {
            node.run(|| programs.attach(program, interface))??;
        }
        let [client, server] = <[Place; 2]>::try_from(pods).ok().context("two pods")?;
        Ok(FloorNode {
            client,
            server,
            _programs: programs,
        })
    }
}

const fn addresses(last: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, last as u16)),
    ]
}

/// As `ip` writes it.
fn mac(text: &str) -> Result<[u8; 6]> {
    let mut bytes = [0; 6];
    let parts: Vec<&str> = text.split(':').collect();
    ensure!(parts.len() == bytes.len(), "{text:?} is no MAC address");
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = u8::from_str_radix(part, 16).with_context(|| format!("{text:?} is no MAC address"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mac_addresses() {
        assert_eq!(
            mac("02:00:ff:00:0a:01").expect("a MAC address"),
            [2, 0, 255, 0, 10, 1]
        );
        assert!(mac("02:00").is_err());
        assert!(mac("02:00:ff:00:0a:xx").is_err());
    }
}
