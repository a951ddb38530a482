//! The agent's half of the CNI plugin: requests, addresses, what is on disk, and what is put on the node.
//!
//! [`server`] takes requests off the socket and hands them to the agent's loop, which answers each. The loop chooses
//! addresses with [`ipam`] and writes what it gave away with [`store`]; [`install`] puts the plugin where the
//! container runtime looks for it. None of them touches the kernel.
//!
//! An attachment is on disk before its interface is made, and its interface is gone before its file is. So an agent
//! that was stopped anywhere between finds by its files whatever there can be in the kernel.

mod durable;
pub mod install;
pub mod ipam;
pub mod server;
pub mod store;

use std::net::IpAddr;

pub use weir_cni::error::{CniError, code};
pub use weir_cni::protocol::{Address, Attached, AttachmentId, Interface};

use crate::numbers::digest;
use crate::workloads::{GATEWAY_V4, GATEWAY_V6, PodInterface, PodLink};

/// Name of the node's end: `weir` and eleven hexadecimal digits, the kernel's 15 bytes. It follows from the
/// attachment, so that a restarted agent finds it.
pub fn host_ifname(container_id: &str, ifname: &str) -> String {
    let [high, _] = digest([container_id, ifname]);
    format!("weir{:011x}", high & 0x0fff_ffff_ffff)
}

/// What the runtime is told of a pod's connection.
pub fn attached(link: &PodLink, interface: &PodInterface) -> Attached {
    let addresses = link.addresses.iter().map(|address| Address {
        address: *address,
        gateway: match address {
            IpAddr::V4(_) => GATEWAY_V4.into(),
            IpAddr::V6(_) => GATEWAY_V6.into(),
        },
    });
    Attached {
        host: Interface {
            name: link.host_ifname.clone(),
            mac: interface.host_mac.to_string(),
        },
        pod: Interface {
            name: link.pod_ifname.clone(),
            mac: interface.pod_mac.to_string(),
        },
        mtu: link.mtu,
        addresses: addresses.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workloads::Mac;

    #[test]
    fn interface_names_are_steady_and_fit() {
        // A name on a node outlives the agent that made it.
        assert_eq!(host_ifname("c1", "eth0"), "weirfd61c7d1f13");
        let names: BTreeSet<String> = (0..10_000)
            .flat_map(|id| ["eth0", "eth1"].map(|ifname| host_ifname(&id.to_string(), ifname)))
            .collect();
        assert_eq!(names.len(), 20_000);
        assert!(
            names
                .iter()
                .all(|name| name.len() == 15 && name.starts_with("weir"))
        );
    }

    #[test]
    fn the_runtime_is_told_both_ends() {
        let link = PodLink {
            netns: "/run/netns/n".into(),
            host_ifname: "weir0".into(),
            pod_ifname: "eth0".into(),
            addresses: vec![[10, 0, 0, 5].into(), "fd00::5".parse().expect("an address")],
            mtu: 1450,
        };
        let interface = PodInterface {
            host_ifindex: 7,
            host_mac: Mac([2, 0x57, 0x45, 0x49, 0x52, 1]),
            pod_ifindex: 2,
            pod_mac: Mac([2, 0, 10, 0, 0, 5]),
        };
        let expected = Attached {
            host: Interface {
                name: "weir0".into(),
                mac: "02:57:45:49:52:01".into(),
            },
            pod: Interface {
                name: "eth0".into(),
                mac: "02:00:0a:00:00:05".into(),
            },
            mtu: 1450,
            addresses: vec![
                Address {
                    address: [10, 0, 0, 5].into(),
                    gateway: [169, 254, 1, 1].into(),
                },
                Address {
                    address: "fd00::5".parse().expect("an address"),
                    gateway: "fe80::1".parse().expect("an address"),
                },
            ],
        };
        assert_eq!(attached(&link, &interface), expected);
    }
}
