//! What the flow log calls things.

use std::collections::BTreeMap;

use weir_policy::resolved::Cause;

use crate::flow::names::{Attribution, Names, ServiceAddress, ServiceName};
use crate::manifests::Objects;

/// `wall_clock_offset` as [`Names::wall_clock_offset`].
#[must_use]
pub fn names(node: &str, objects: &Objects, rules: &BTreeMap<u32, Cause>, wall_clock_offset: i64) -> Names {
    let services = objects.service_ports().into_iter().map(|service| {
        let address = ServiceAddress {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
        };
        (
            address,
            ServiceName {
                namespace: service.namespace,
                name: service.name,
            },
        )
    });
    Names {
        node_name: node.to_owned(),
        endpoints: objects.endpoints(node),
        rules: rules
            .iter()
            .map(|(number, cause)| (*number, Attribution::from(cause)))
            .collect(),
        services: services.collect(),
        wall_clock_offset,
    }
}
