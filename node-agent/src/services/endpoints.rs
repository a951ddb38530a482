//! EndpointSlices → who can serve each Service port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use weir_policy::snapshot::ObjectName;

use crate::services::problem::{Reporter, ServiceKind, ServiceProblem, ServiceProblemCode};
use crate::services::{HEADLESS_LABEL, SERVICE_NAME_LABEL, object_name};

/// The endpoints of each Service port, by address.
pub(super) type Endpoints = BTreeMap<PortOfService, BTreeMap<(IpAddr, u16), State>>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortOfService {
    pub service: ObjectName,
    pub port_name: String,
    pub protocol: u8,
}

/// Ordered from the best to the worst, so that of two slices that list an address the better word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Ready,
    /// Terminating, and still serving.
    LastResort,
    Unable,
}

pub(super) fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    problems: &mut Vec<ServiceProblem>,
) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for slice in slices {
        let label = |key| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let (Some(service), None) = (label(SERVICE_NAME_LABEL), label(HEADLESS_LABEL)) else {
            continue;
        };
        let object = object_name(&slice.metadata);
        let service = ObjectName::new(&object.namespace, service);
        let mut reporter = Reporter {
            kind: ServiceKind::EndpointSlice,
            object: &object,
            problems,
        };
        let ports = slice_ports(slice, &service, &mut reporter);
        for (address, state) in slice_addresses(slice, &mut reporter) {
            for (key, port) in &ports {
                let known = endpoints
                    .entry(key.clone())
                    .or_default()
                    .entry((address, *port))
                    .or_insert(state);
                *known = state.min(*known);
            }
        }
    }
    endpoints
}

fn slice_ports(
    slice: &EndpointSlice,
    service: &ObjectName,
    reporter: &mut Reporter<'_>,
) -> Vec<(PortOfService, u16)> {
    let mut ports = Vec::new();
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        let field = format!("ports[{i}]");
        // A port without a number stands for every port, which no Service port can be joined with.
        let Some(number) = port.port else { continue };
        let number = reporter.port(&format!("{field}.port"), number);
        let protocol = reporter.protocol(&format!("{field}.protocol"), port.protocol.as_deref());
        if let (Some(number), Some(protocol)) = (number, protocol) {
            let port_name = port.name.clone().unwrap_or_default();
            ports.push((
                PortOfService {
                    service: service.clone(),
                    port_name,
                    protocol,
                },
                number,
            ));
        }
    }
    ports
}

/// The first address of each endpoint: the others are never used (kube-proxy, `EndpointSliceCache`).
fn slice_addresses(slice: &EndpointSlice, reporter: &mut Reporter<'_>) -> Vec<(IpAddr, State)> {
    let is_family: fn(&IpAddr) -> bool = match slice.address_type.as_str() {
        "IPv4" => IpAddr::is_ipv4,
        "IPv6" => IpAddr::is_ipv6,
        _ => return Vec::new(),
    };
    let mut addresses = Vec::new();
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        let Some(text) = endpoint.addresses.first() else {
            continue;
        };
        let field = format!("endpoints[{i}].addresses[0]");
        let Some(address) = reporter.address(&field, text) else {
            continue;
        };
        if is_family(&address) {
            addresses.push((address, state(endpoint)));
        } else {
            let message = format!(
                "{address} is no address of the slice's addressType {}; the endpoint is left out",
                slice.address_type
            );
            reporter.report(&field, ServiceProblemCode::WrongFamily, message);
        }
    }
    addresses
}

/// What is not said is taken for ready, serving and not terminating, as the API defines.
fn state(endpoint: &Endpoint) -> State {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let serving = conditions.serving.or(conditions.ready).unwrap_or(true);
    if conditions.ready.unwrap_or(true) {
        State::Ready
    } else if serving && conditions.terminating.unwrap_or(false) {
        State::LastResort
    } else {
        State::Unable
    }
}
