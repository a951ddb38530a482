//! Services and EndpointSlices → which address and port leads to which backends.
//!
//! What kube-proxy does with ClusterIPs (Kubernetes 1.36, `pkg/proxy`): Services with a `service-proxy-name` label,
//! headless ones and ExternalNames are somebody else's; an endpoint serves when it is ready, and where none is ready
//! those do that still serve while they terminate.

mod endpoints;
mod problem;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_policy::model::Protocol;
use weir_policy::snapshot::ObjectName;

pub(crate) use problem::special;
pub use problem::{ServiceKind, ServiceProblem, ServiceProblemCode};

use endpoints::{Endpoints, PortOfService, State, endpoints};
use problem::Reporter;

/// On a Service: some other proxy serves it.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// On an EndpointSlice: its Service has no address.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// On an EndpointSlice: the name of its Service, in the same namespace.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// One port at one address of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub namespace: String,
    pub name: String,
    /// Empty where the Service's only port has none.
    pub port_name: String,
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    pub address: IpAddr,
    /// Host byte order, not 0.
    pub port: u16,
    /// Of the address's family, sorted, each once. Empty where nobody can serve.
    pub backends: Vec<(IpAddr, u16)>,
}

/// Joins Services with their endpoints. Both results are sorted; the order of the arguments carries no meaning.
pub fn service_ports<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> (Vec<ServicePort>, Vec<ServiceProblem>) {
    let mut problems = Vec::new();
    let endpoints = endpoints(slices, &mut problems);
    let mut ports = Vec::new();
    for service in services {
        if let Some(spec) = spec_that_is_ours(service) {
            add_service(
                &object_name(&service.metadata),
                spec,
                &endpoints,
                &mut ports,
                &mut problems,
            );
        }
    }
    ports.sort();
    let ports = without_taken_addresses(ports, &mut problems);
    problems.sort();
    problems.dedup();
    (ports, problems)
}

/// The spec, where this proxy is to serve the Service by a cluster address.
fn spec_that_is_ours(service: &Service) -> Option<&ServiceSpec> {
    let labelled = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    let spec = service.spec.as_ref()?;
    let external_name = spec.type_.as_deref() == Some("ExternalName");
    let headless = spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.iter().flatten().any(|address| address == "None");
    (!labelled && !external_name && !headless).then_some(spec)
}

fn add_service(
    object: &ObjectName,
    spec: &ServiceSpec,
    endpoints: &Endpoints,
    ports: &mut Vec<ServicePort>,
    problems: &mut Vec<ServiceProblem>,
) {
    let mut reporter = Reporter {
        kind: ServiceKind::Service,
        object,
        problems,
    };
    let addresses = cluster_addresses(spec, &mut reporter);
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{i}]");
        let number = reporter.port(&format!("{field}.port"), port.port);
        let protocol = reporter.protocol(&format!("{field}.protocol"), port.protocol.as_deref());
        let (Some(number), Some(protocol)) = (number, protocol) else {
            continue;
        };
        let port_name = port.name.clone().unwrap_or_default();
        let key = PortOfService {
            service: object.clone(),
            port_name,
            protocol,
        };
        for &address in &addresses {
            ports.push(ServicePort {
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                port_name: key.port_name.clone(),
                protocol,
                address,
                port: number,
                backends: backends(endpoints.get(&key), address),
            });
        }
    }
}

fn cluster_addresses(spec: &ServiceSpec, reporter: &mut Reporter<'_>) -> BTreeSet<IpAddr> {
    let listed: Vec<(String, &String)> = match spec.cluster_ips.as_deref() {
        Some(addresses) if !addresses.is_empty() => addresses
            .iter()
            .enumerate()
            .map(|(i, address)| (format!("spec.clusterIPs[{i}]"), address))
            .collect(),
        _ => spec
            .cluster_ip
            .iter()
            .map(|address| ("spec.clusterIP".to_owned(), address))
            .collect(),
    };
    let given: Vec<_> = listed
        .into_iter()
        .filter(|(_, address)| !address.is_empty())
        .collect();
    if given.is_empty() {
        let message = "the Service has no cluster address; nothing leads to it";
        reporter.report(
            "spec.clusterIPs",
            ServiceProblemCode::MissingAddress,
            message.to_owned(),
        );
    }
    given
        .into_iter()
        .filter_map(|(field, address)| reporter.address(&field, address))
        .collect()
}

fn backends(endpoints: Option<&BTreeMap<(IpAddr, u16), State>>, of_family: IpAddr) -> Vec<(IpAddr, u16)> {
    let in_state = |wanted: State| -> Vec<(IpAddr, u16)> {
        let endpoints = endpoints.into_iter().flatten();
        endpoints
            .filter(|((address, _), state)| **state == wanted && address.is_ipv4() == of_family.is_ipv4())
            .map(|(backend, _)| *backend)
            .collect()
    };
    let ready = in_state(State::Ready);
    if ready.is_empty() {
        in_state(State::LastResort)
    } else {
        ready
    }
}

/// Of Services that claim the same address, port and protocol, the first by namespace and name has it. `ports` is
/// sorted by these.
fn without_taken_addresses(ports: Vec<ServicePort>, problems: &mut Vec<ServiceProblem>) -> Vec<ServicePort> {
    let mut owners = BTreeMap::<(IpAddr, u16, u8), ObjectName>::new();
    let mut kept = Vec::new();
    for port in ports {
        let object = ObjectName::new(&port.namespace, &port.name);
        let place = (port.address, port.port, port.protocol);
        if let Some(owner) = owners.get(&place) {
            problems.push(ServiceProblem {
                kind: ServiceKind::Service,
                object,
                field: "spec.clusterIPs".to_owned(),
                code: ServiceProblemCode::AddressTaken,
                message: format!(
                    "{} port {} of {} is taken by Service {owner}, which keeps it",
                    protocol_name(port.protocol),
                    port.port,
                    port.address
                ),
            });
        } else {
            owners.insert(place, object);
            kept.push(port);
        }
    }
    kept
}

fn protocol_name(number: u8) -> String {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.number() == number)
        .map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

fn object_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, spec: Value) -> Service {
        let metadata = json!({"namespace": "ns", "name": name});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Service")
    }

    fn slice(name: &str, service: &str, address_type: &str, ports: Value, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {SERVICE_NAME_LABEL: service}},
            "addressType": address_type, "ports": ports, "endpoints": endpoints,
        }))
        .expect("an EndpointSlice")
    }

    fn port(name: &str, protocol: u8, address: &str, port: u16, backends: &[(&str, u16)]) -> ServicePort {
        ServicePort {
            namespace: "ns".to_owned(),
            name: "svc".to_owned(),
            port_name: name.to_owned(),
            protocol,
            address: address.parse().expect("an address"),
            port,
            backends: backends
                .iter()
                .map(|(address, port)| (address.parse().expect("an address"), *port))
                .collect(),
        }
    }

    fn problem(
        kind: ServiceKind,
        name: &str,
        field: &str,
        code: ServiceProblemCode,
        message: &str,
    ) -> ServiceProblem {
        let (object, field) = (ObjectName::new("ns", name), field.to_owned());
        ServiceProblem {
            kind,
            object,
            field,
            code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn both_families_and_named_ports_are_joined() {
        let service = service(
            "svc",
            json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [
                {"name": "web", "port": 80, "targetPort": 8080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ]}),
        );
        let ports = json!([{"name": "web", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
        let slices = [
            slice(
                "v6",
                "svc",
                "IPv6",
                ports.clone(),
                json!([{"addresses": ["fd01::2"]}]),
            ),
            slice(
                "v4",
                "svc",
                "IPv4",
                ports.clone(),
                json!([{"addresses": ["10.1.0.3"]}, {"addresses": ["10.1.0.2"]}]),
            ),
            slice(
                "v4-again",
                "svc",
                "IPv4",
                ports,
                json!([{"addresses": ["10.1.0.2", "10.1.0.99"]}]),
            ),
        ];
        let expected = (
            vec![
                port(
                    "dns",
                    17,
                    "10.96.0.1",
                    53,
                    &[("10.1.0.2", 5353), ("10.1.0.3", 5353)],
                ),
                port("dns", 17, "fd00::1", 53, &[("fd01::2", 5353)]),
                port(
                    "web",
                    6,
                    "10.96.0.1",
                    80,
                    &[("10.1.0.2", 8080), ("10.1.0.3", 8080)],
                ),
                port("web", 6, "fd00::1", 80, &[("fd01::2", 8080)]),
            ],
            vec![],
        );
        assert_eq!(service_ports([&service], &slices), expected);
        assert_eq!(service_ports([&service], slices.iter().rev()), expected);
    }

    #[test]
    fn those_that_terminate_serve_where_no_other_is_ready() {
        let backends = |endpoints: Value| {
            let service = service("svc", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
            let slice = slice("s", "svc", "IPv4", json!([{"port": 8080}]), endpoints);
            let (ports, problems) = service_ports([&service], [&slice]);
            assert_eq!((ports.len(), problems), (1, vec![]));
            ports[0]
                .backends
                .iter()
                .map(|(address, _)| address.to_string())
                .collect::<Vec<_>>()
        };
        let endpoint =
            |address: &str, conditions: Value| json!({"addresses": [address], "conditions": conditions});
        let unready = endpoint("10.1.0.1", json!({"ready": false}));
        let unready_but_serving = endpoint("10.1.0.2", json!({"ready": false, "serving": true}));
        let terminating = endpoint(
            "10.1.0.3",
            json!({"ready": false, "serving": true, "terminating": true}),
        );
        let terminated = endpoint(
            "10.1.0.4",
            json!({"ready": false, "serving": false, "terminating": true}),
        );
        let ready = endpoint("10.1.0.5", json!({}));
        let no_word = json!({"addresses": ["10.1.0.6"]});
        let all = [
            &unready,
            &unready_but_serving,
            &terminating,
            &terminated,
            &ready,
            &no_word,
        ];
        assert_eq!(backends(json!(all)), ["10.1.0.5", "10.1.0.6"]);
        assert_eq!(backends(json!(all[..4])), ["10.1.0.3"]);
        assert_eq!(backends(json!(all[..2])), Vec::<String>::new());
    }

    #[test]
    fn the_better_word_on_an_address_counts() {
        let service = service("svc", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
        let with = |name: &str, conditions: Value| {
            let endpoints = json!([{"addresses": ["10.1.0.1"], "conditions": conditions}]);
            slice(name, "svc", "IPv4", json!([{"port": 8080}]), endpoints)
        };
        let slices = [
            with("a", json!({"ready": true})),
            with("b", json!({"ready": false, "terminating": true})),
        ];
        let expected = (vec![port("", 6, "10.96.0.1", 80, &[("10.1.0.1", 8080)])], vec![]);
        assert_eq!(service_ports([&service], &slices), expected);
        assert_eq!(service_ports([&service], slices.iter().rev()), expected);
    }

    #[test]
    fn what_is_not_ours_is_left_out_without_a_word() {
        let ports = json!([{"port": 80}]);
        let mut labelled = service("labelled", json!({"clusterIP": "10.96.0.9", "ports": ports}));
        labelled.metadata.labels = Some(BTreeMap::from([(
            PROXY_NAME_LABEL.to_owned(),
            "other".to_owned(),
        )]));
        let services = [
            labelled,
            service(
                "headless",
                json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
            ),
            service(
                "external",
                json!({"type": "ExternalName", "externalName": "example.org"}),
            ),
            service("svc", json!({"clusterIP": "10.96.0.1", "ports": ports})),
        ];
        let mut headless = slice(
            "h",
            "svc",
            "IPv4",
            ports.clone(),
            json!([{"addresses": ["10.1.0.1"]}]),
        );
        headless
            .metadata
            .labels
            .get_or_insert_default()
            .insert(HEADLESS_LABEL.to_owned(), String::new());
        let other_port = slice(
            "p",
            "svc",
            "IPv4",
            json!([{"name": "x", "port": 80}]),
            json!([{"addresses": ["10.1.0.2"]}]),
        );
        let other_protocol = slice(
            "q",
            "svc",
            "IPv4",
            json!([{"port": 80, "protocol": "UDP"}]),
            json!([{"addresses": ["10.1.0.3"]}]),
        );
        let names = slice("f", "svc", "FQDN", ports, json!([{"addresses": ["example.org"]}]));
        let slices = [headless, other_port, other_protocol, names];
        assert_eq!(
            service_ports(&services, &slices),
            (vec![port("", 6, "10.96.0.1", 80, &[])], vec![])
        );
    }

    #[test]
    fn what_cannot_be_is_left_out_and_said() {
        use ServiceKind::{EndpointSlice as Slice, Service};
        use ServiceProblemCode::{
            AddressTaken, InvalidAddress, InvalidPort, InvalidProtocol, MissingAddress, WrongFamily,
        };
        let services = [
            service(
                "svc",
                json!({"clusterIPs": ["10.96.0.1", "fe80::1", "1.2.3"], "ports": [
                    {"name": "a", "port": 80}, {"name": "b", "port": 0}, {"name": "c", "port": 1, "protocol": "ICMP"},
                ]}),
            ),
            service(
                "thief",
                json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
            ),
            service("void", json!({"clusterIPs": [], "ports": [{"port": 80}]})),
        ];
        let slice = slice(
            "s",
            "svc",
            "IPv4",
            json!([{"name": "a", "port": 8080}, {"name": "a", "port": 70000}]),
            json!([
                {"addresses": ["fd00::5"]}, {"addresses": ["127.0.0.1"]}, {"addresses": ["x"]}, {"addresses": []},
                {"addresses": ["10.1.0.1"]},
            ]),
        );
        let taken = "TCP port 80 of 10.96.0.1 is taken by Service ns/svc, which keeps it";
        let expected = vec![
            problem(
                Service,
                "svc",
                "spec.clusterIPs[1]",
                InvalidAddress,
                "fe80::1 is no address that can be routed to; the address is left out",
            ),
            problem(
                Service,
                "svc",
                "spec.clusterIPs[2]",
                InvalidAddress,
                "\"1.2.3\" is no IP address; the address is left out",
            ),
            problem(
                Service,
                "svc",
                "spec.ports[1].port",
                InvalidPort,
                "0 is no port: they go from 1 to 65535; the port is left out",
            ),
            problem(
                Service,
                "svc",
                "spec.ports[2].protocol",
                InvalidProtocol,
                "\"ICMP\" is none of TCP, UDP and SCTP; the port is left out",
            ),
            problem(Service, "thief", "spec.clusterIPs", AddressTaken, taken),
            problem(
                Service,
                "void",
                "spec.clusterIPs",
                MissingAddress,
                "the Service has no cluster address; nothing leads to it",
            ),
            problem(
                Slice,
                "s",
                "endpoints[0].addresses[0]",
                WrongFamily,
                "fd00::5 is no address of the slice's addressType IPv4; the endpoint is left out",
            ),
            problem(
                Slice,
                "s",
                "endpoints[1].addresses[0]",
                InvalidAddress,
                "127.0.0.1 is a loopback address; the address is left out",
            ),
            problem(
                Slice,
                "s",
                "endpoints[2].addresses[0]",
                InvalidAddress,
                "\"x\" is no IP address; the address is left out",
            ),
            problem(
                Slice,
                "s",
                "ports[1].port",
                InvalidPort,
                "70000 is no port: they go from 1 to 65535; the port is left out",
            ),
        ];
        let (ports, problems) = service_ports(&services, [&slice]);
        assert_eq!(problems, expected);
        assert_eq!(ports, [port("a", 6, "10.96.0.1", 80, &[("10.1.0.1", 8080)])]);
    }
}
