//! What `ADD` tells the runtime.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use crate::protocol::Attached;
use crate::version::SpecVersion;

/// A result in the form of one version of the specification. Keys that the version does not have are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResult {
    pub cni_version: &'static str,
    /// The node's end, and then the pod's.
    pub interfaces: Vec<Interface>,
    pub ips: Vec<Ip>,
    pub routes: Vec<Route>,
    /// Empty: a pod's resolver is the kubelet's to configure.
    pub dns: Dns,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    /// In bytes without the Ethernet header. From 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the pod's network namespace; the node's end has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ip {
    /// `4` or `6`. Before 1.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// Index in `interfaces`.
    pub interface: usize,
    /// With its prefix: `/32` or `/128`, for nobody else is on the pod's wire.
    pub address: IpNet,
    pub gateway: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    pub dst: IpNet,
    pub gw: IpAddr,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dns {}

/// Place of the pod's end in `interfaces`.
const POD_INTERFACE: usize = 1;

impl AddResult {
    /// `sandbox` is the path of the pod's network namespace as the runtime gave it.
    pub fn new(version: SpecVersion, sandbox: &str, attached: &Attached) -> AddResult {
        let mtu = (version >= SpecVersion::V1_1_0).then_some(attached.mtu);
        let host = Interface {
            name: attached.host.name.clone(),
            mac: attached.host.mac.clone(),
            mtu,
            sandbox: None,
        };
        let pod = Interface {
            name: attached.pod.name.clone(),
            mac: attached.pod.mac.clone(),
            mtu,
            sandbox: Some(sandbox.to_owned()),
        };
        let ips = attached.addresses.iter().map(|one| Ip {
            version: (version < SpecVersion::V1_0_0).then_some(if one.address.is_ipv4() { "4" } else { "6" }),
            interface: POD_INTERFACE,
            address: one.address.into(),
            gateway: one.gateway,
        });
        AddResult {
            cni_version: version.as_str(),
            interfaces: vec![host, pod],
            ips: ips.collect(),
            routes: default_routes(attached),
            dns: Dns {},
        }
    }
}

/// One of each family, in the order in which the addresses bring them.
fn default_routes(attached: &Attached) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for one in &attached.addresses {
        let route = Route {
            dst: everything(one.address),
            gw: one.gateway,
        };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    routes
}

/// `0.0.0.0/0` or `::/0`.
fn everything(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::{self, Address};

    fn attached() -> Attached {
        Attached {
            host: protocol::Interface {
                name: "weir0123456789a".into(),
                mac: "02:57:45:49:52:01".into(),
            },
            pod: protocol::Interface {
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
        }
    }

    fn result(version: SpecVersion) -> Value {
        serde_json::to_value(AddResult::new(version, "/run/netns/n", &attached())).expect("JSON")
    }

    #[test]
    fn of_1_1_0() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "weir0123456789a", "mac": "02:57:45:49:52:01", "mtu": 1450 },
                { "name": "eth0", "mac": "02:00:0a:00:00:05", "mtu": 1450, "sandbox": "/run/netns/n" },
            ],
            "ips": [
                { "interface": 1, "address": "10.0.0.5/32", "gateway": "169.254.1.1" },
                { "interface": 1, "address": "fd00::5/128", "gateway": "fe80::1" },
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "gw": "169.254.1.1" },
                { "dst": "::/0", "gw": "fe80::1" },
            ],
            "dns": {},
        });
        assert_eq!(result(SpecVersion::V1_1_0), expected);
    }

    #[test]
    fn of_1_0_0_is_without_mtu() {
        let mut expected = result(SpecVersion::V1_1_0);
        expected["cniVersion"] = json!("1.0.0");
        expected["interfaces"] = json!([
            { "name": "weir0123456789a", "mac": "02:57:45:49:52:01" },
            { "name": "eth0", "mac": "02:00:0a:00:00:05", "sandbox": "/run/netns/n" },
        ]);
        assert_eq!(result(SpecVersion::V1_0_0), expected);
    }

    #[test]
    fn before_1_0_0_addresses_say_their_family() {
        for (version, text) in [(SpecVersion::V0_3_1, "0.3.1"), (SpecVersion::V0_4_0, "0.4.0")] {
            let mut expected = result(SpecVersion::V1_0_0);
            expected["cniVersion"] = json!(text);
            expected["ips"] = json!([
                { "version": "4", "interface": 1, "address": "10.0.0.5/32", "gateway": "169.254.1.1" },
                { "version": "6", "interface": 1, "address": "fd00::5/128", "gateway": "fe80::1" },
            ]);
            assert_eq!(result(version), expected);
        }
    }
}
