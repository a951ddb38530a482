//! `CHECK`: whether what the pod has is what the runtime was told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::CniError;
use crate::error::code;
use crate::protocol::Attached;

/// What of a previous result is looked at. Plugins that came after may have added interfaces, addresses and routes,
/// and changed link-layer addresses and MTUs.
#[derive(Deserialize)]
struct PreviousResult {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
    interface: Option<usize>,
}

/// Fails with code 7 where the previous result does not tell of the interface, and with code 100 where it tells of
/// other addresses.
pub(crate) fn check(
    previous: &Map<String, Value>,
    ifname: &str,
    attached: &Attached,
) -> Result<(), CniError> {
    let previous = PreviousResult::deserialize(previous)
        .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("prevResult: {error}")))?;
    let index = previous
        .interfaces
        .iter()
        .position(|interface| interface.name == ifname && !interface.sandbox.is_empty())
        .ok_or_else(|| {
            CniError::new(
                code::INVALID_CONFIG,
                format!("prevResult: interfaces: no {ifname} in a sandbox"),
            )
        })?;
    let told: BTreeSet<IpAddr> = previous
        .ips
        .iter()
        .filter(|ip| ip.interface == Some(index))
        .map(|ip| ip.address.addr())
        .collect();
    let is: BTreeSet<IpAddr> = attached.addresses.iter().map(|one| one.address).collect();
    if is.is_subset(&told) {
        return Ok(());
    }
    Err(CniError::new(
        code::DIFFERS,
        format!(
            "prevResult: ips: {ifname} has {}, and was said to have {}",
            list(&is),
            list(&told)
        ),
    ))
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    if addresses.is_empty() {
        return "no address".into();
    }
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(" and ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::{self, Address};
    use crate::result::AddResult;
    use crate::version::SpecVersion;

    fn attached() -> Attached {
        let interface = |name: &str| protocol::Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
        };
        Attached {
            host: interface("weir0"),
            pod: interface("eth0"),
            mtu: 1500,
            addresses: vec![Address {
                address: [10, 0, 0, 5].into(),
                gateway: [169, 254, 1, 1].into(),
            }],
        }
    }

    fn previous(version: SpecVersion) -> Value {
        serde_json::to_value(AddResult::new(version, "/run/netns/n", &attached())).expect("JSON")
    }

    fn run(previous: &Value) -> Result<(), CniError> {
        check(previous.as_object().expect("an object"), "eth0", &attached())
    }

    #[test]
    fn right_after_add_all_is_well() {
        for version in SpecVersion::ALL {
            assert_eq!(run(&previous(version)), Ok(()));
        }
    }

    #[test]
    fn what_later_plugins_change_is_well() {
        let mut previous = previous(SpecVersion::V1_1_0);
        previous["interfaces"][1]["mac"] = json!("0a:00:00:00:00:00");
        previous["interfaces"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "name": "net1", "sandbox": "/run/netns/n" }));
        previous["ips"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "address": "192.168.0.9/24", "interface": 2 }));
        assert_eq!(run(&previous), Ok(()));
    }

    #[test]
    fn tells_what_differs() {
        let mut other = previous(SpecVersion::V1_0_0);
        other["ips"][0]["address"] = json!("10.0.0.6/32");
        let expected = "prevResult: ips: eth0 has 10.0.0.5, and was said to have 10.0.0.6";
        assert_eq!(run(&other), Err(CniError::new(100, expected)));

        other["ips"] = json!([]);
        let expected = "prevResult: ips: eth0 has 10.0.0.5, and was said to have no address";
        assert_eq!(run(&other), Err(CniError::new(100, expected)));

        other["interfaces"] = json!([{ "name": "eth0" }]);
        let expected = "prevResult: interfaces: no eth0 in a sandbox";
        assert_eq!(run(&other), Err(CniError::new(7, expected)));

        other["interfaces"] = json!([{}]);
        let expected = "prevResult: missing field `name`";
        assert_eq!(run(&other), Err(CniError::new(7, expected)));
    }
}
