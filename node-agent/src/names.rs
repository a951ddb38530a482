//! What the flow log calls things.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_policy::resolved::Cause;

use crate::flow::names::{Attribution, Endpoint, Names, ServiceAddress, ServiceName};
use crate::services::ServicePort;

/// `wall_clock_offset` as [`Names::wall_clock_offset`].
#[must_use]
pub fn names(
    node: &str,
    endpoints: BTreeMap<IpAddr, Endpoint>,
    services: &[ServicePort],
    rules: &BTreeMap<u32, Cause>,
    wall_clock_offset: i64,
) -> Names {
    let services = services.iter().map(|service| {
        let address = ServiceAddress {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
        };
        let name = ServiceName {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        (address, name)
    });
    Names {
        node_name: node.to_owned(),
        endpoints,
        rules: rules
            .iter()
            .map(|(number, cause)| (*number, Attribution::from(cause)))
            .collect(),
        services: services.collect(),
        wall_clock_offset,
    }
}
