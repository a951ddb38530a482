//! What the API server checks of an object beyond the types of its fields.
//!
//! Of policies only the selectors of NetworkPolicies are looked at here, since what one that is not understood might
//! select has no bounds. [`weir_policy::lower`](mod@weir_policy::lower) reads ports and CIDRs, and all of
//! ClusterNetworkPolicies, whose selectors the API server does not check, in a way that fails closed, and reports them.
//! Services and EndpointSlices are looked at by [`services`](crate::services), which leaves out what cannot be.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_policy::lower;
use weir_policy::model::{PolicyRef, Protocol};
use weir_policy::problem::Code;
use weir_policy::snapshot::Labels;

use crate::manifests::locate::{self, Segment};
use crate::manifests::names;
use crate::manifests::object::Object;
use crate::services::special;

/// `path!["spec", "ports", 0]`.
macro_rules! path {
    ($($segment:expr),+) => { [$(Segment::from($segment)),+] };
}

/// A value that the API server would not admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub path: Vec<Segment>,
    pub message: String,
}

/// Everything but the object's own name and namespace.
pub(crate) fn validate(object: &Object) -> Vec<Invalid> {
    let mut invalid = Collector::default();
    labels(object.metadata(), &mut invalid);
    match object {
        Object::Pod(object) => pod(object, &mut invalid),
        Object::Node(object) => node(object, &mut invalid),
        Object::NetworkPolicy(object) => selectors(object, &mut invalid),
        Object::Namespace(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::ClusterNetworkPolicy(_)
        | Object::FlowLogPolicy(_) => {}
    }
    invalid.0
}

fn labels(metadata: &ObjectMeta, invalid: &mut Collector) {
    for (key, value) in metadata.labels.iter().flatten() {
        let path = path!["metadata", "labels", key];
        invalid.check(&path, names::qualified(key));
        invalid.check(&path, names::label_value(value));
    }
    for key in metadata.annotations.iter().flatten().map(|(key, _)| key) {
        invalid.check(&path!["metadata", "annotations", key], names::qualified(key));
    }
}

fn pod(pod: &Pod, invalid: &mut Collector) {
    if let Some(spec) = &pod.spec {
        let lists = [
            ("containers", Some(&spec.containers)),
            ("initContainers", spec.init_containers.as_ref()),
        ];
        for (list, containers) in lists {
            for (i, container) in containers.into_iter().flatten().enumerate() {
                container_ports(container, &path!["spec", list, i], invalid);
            }
        }
    }
    let Some(status) = &pod.status else { return };
    if let Some(text) = &status.pod_ip {
        address(text, &path!["status", "podIP"], invalid);
    }
    let mut families = [false, false];
    for (i, ip) in status.pod_ips.iter().flatten().enumerate() {
        let path = path!["status", "podIPs", i, "ip"];
        if let Some(address) = address(&ip.ip, &path, invalid)
            && std::mem::replace(&mut families[usize::from(address.is_ipv6())], true)
        {
            invalid.add(&path, "a pod has one address of each family at most".to_owned());
        }
    }
    if let (Some(first), Some(text)) = (
        status.pod_ips.iter().flatten().next(),
        status.pod_ip.as_ref().filter(|text| !text.is_empty()),
    ) && first.ip != *text
    {
        let message = format!("{text:?} is not the first of status.podIPs, {:?}", first.ip);
        invalid.add(&path!["status", "podIP"], message);
    }
}

fn container_ports(container: &Container, path: &[Segment], invalid: &mut Collector) {
    for (i, port) in container.ports.iter().flatten().enumerate() {
        container_port(port, &[path, &path!["ports", i]].concat(), invalid);
    }
}

fn container_port(port: &ContainerPort, path: &[Segment], invalid: &mut Collector) {
    let at = |field: &str| [path, &path![field]].concat();
    if !(1..=65535).contains(&port.container_port) {
        let message = format!("{} is no port: they go from 1 to 65535", port.container_port);
        invalid.add(&at("containerPort"), message);
    }
    if let Some(name) = &port.name {
        invalid.check(&at("name"), names::port_name(name));
    }
    if let Some(protocol) = &port.protocol
        && Protocol::parse(protocol).is_none()
    {
        invalid.add(
            &at("protocol"),
            format!("{protocol:?} is none of TCP, UDP and SCTP"),
        );
    }
}

fn node(node: &Node, invalid: &mut Collector) {
    let addresses = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    for (i, entry) in addresses.enumerate() {
        if entry.type_.ends_with("IP") && entry.address.parse::<IpAddr>().is_err() {
            let message = format!("{:?} is no IP address", entry.address);
            invalid.add(&path!["status", "addresses", i, "address"], message);
        }
    }
}

/// What `ValidateLabelSelector` refuses is what cannot be lowered: this is its one judge.
fn selectors(policy: &NetworkPolicy, invalid: &mut Collector) {
    let Some(spec) = &policy.spec else { return };
    let reference = PolicyRef::network_policy("", "");
    let (_, problems) = lower::network_policy(reference, &Labels::new(), spec);
    let selectors = problems
        .into_iter()
        .filter(|problem| problem.code == Code::InvalidSelector);
    for problem in selectors {
        invalid.add(&locate::path(&problem.field), problem.message);
    }
}

fn address(text: &str, path: &[Segment], invalid: &mut Collector) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => match special(address) {
            None => return Some(address),
            Some(what) => invalid.add(path, format!("{address} is {what}")),
        },
        Err(_) => invalid.add(path, format!("{text:?} is no IP address")),
    }
    None
}

#[derive(Default)]
struct Collector(Vec<Invalid>);

impl Collector {
    fn add(&mut self, path: &[Segment], message: String) {
        self.0.push(Invalid {
            path: path.to_vec(),
            message,
        });
    }

    fn check(&mut self, path: &[Segment], result: Result<(), String>) {
        if let Err(message) = result {
            self.add(path, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::locate::field;
    use crate::manifests::object::{Kind, decode};

    fn invalid(kind: Kind, text: &str) -> Vec<(String, String)> {
        let value = serde_yaml_ng::from_str(text).expect("YAML");
        let decoded = decode(kind, value, Some("default")).expect("an object");
        assert_eq!(decoded.unknown, Vec::<Vec<Segment>>::new());
        validate(&decoded.object)
            .into_iter()
            .map(|invalid| (field(&invalid.path), invalid.message))
            .collect()
    }

    fn expected<const N: usize>(problems: [(&str, &str); N]) -> Vec<(String, String)> {
        problems
            .map(|(field, message)| (field.to_owned(), message.to_owned()))
            .to_vec()
    }

    #[test]
    fn a_pod_that_is_right_has_nothing_wrong() {
        let pod = "
            metadata: {labels: {app.kubernetes.io/name: web, empty: ''}, annotations: {example.org/any: '§ 1'}}
            spec: {containers: [{name: a, ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}
            status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}";
        assert_eq!(invalid(Kind::Pod, pod), []);
    }

    #[test]
    fn everything_that_is_wrong_with_a_pod_is_named() {
        let pod = "
            metadata: {labels: {'a b': x, c: 'y z'}, annotations: {'/': ''}}
            spec:
              containers: [{name: a, ports: [{name: HTTP, containerPort: 0, protocol: ICMP}]}]
              initContainers: [{name: b, ports: [{containerPort: 65536}]}]
            status: {podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}, {ip: '::1'}, {ip: x}]}";
        let problems = invalid(Kind::Pod, pod);
        let fields: Vec<&str> = problems.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.labels.a b",
                "metadata.labels.c",
                "metadata.annotations./",
                "spec.containers[0].ports[0].containerPort",
                "spec.containers[0].ports[0].name",
                "spec.containers[0].ports[0].protocol",
                "spec.initContainers[0].ports[0].containerPort",
                "status.podIPs[1].ip",
                "status.podIPs[2].ip",
                "status.podIPs[3].ip",
                "status.podIP",
            ]
        );
        assert_eq!(
            problems[7..],
            expected([
                (
                    "status.podIPs[1].ip",
                    "a pod has one address of each family at most"
                ),
                ("status.podIPs[2].ip", "::1 is a loopback address"),
                ("status.podIPs[3].ip", "\"x\" is no IP address"),
                (
                    "status.podIP",
                    "\"10.0.0.9\" is not the first of status.podIPs, \"10.0.0.1\""
                ),
            ])
        );
    }

    #[test]
    fn the_addresses_of_a_node_are_addresses_where_they_say_so() {
        let node = "status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: n1}]}";
        assert_eq!(
            invalid(Kind::Node, node),
            expected([("status.addresses[1].address", "\"n1\" is no IP address")])
        );
    }

    #[test]
    fn every_selector_of_a_network_policy_is_one() {
        let selector = |expression: &str| {
            invalid(
                Kind::NetworkPolicy,
                &format!("spec: {{podSelector: {{matchExpressions: [{expression}]}}}}"),
            )
        };
        assert_eq!(
            selector("{key: a, operator: Exists}, {key: a, operator: In, values: ['']}"),
            []
        );
        let at = "spec.podSelector.matchExpressions[0]";
        for (expression, field, message) in [
            (
                "{key: a, operator: Inn, values: [b]}",
                ".operator",
                "\"Inn\" is not one of In, NotIn, Exists, DoesNotExist",
            ),
            (
                "{key: a, operator: NotIn}",
                ".values",
                "the operator NotIn needs at least one value",
            ),
            (
                "{key: a, operator: Exists, values: [b]}",
                ".values",
                "the operator Exists takes no values",
            ),
            (
                "{key: a b, operator: Exists}",
                "",
                "\"a b\" cannot be the key of a label",
            ),
            (
                "{key: a, operator: In, values: [b/c]}",
                "",
                "\"b/c\" cannot be the value of a label",
            ),
        ] {
            assert_eq!(
                selector(expression),
                expected([(&format!("{at}{field}"), message)])
            );
        }
        let peers = "
            spec:
              podSelector: {}
              ingress: [{ports: [{port: 0}]}, {from: [{namespaceSelector: {matchLabels: {example.org/a: '-'}}}]}]
              egress: [{to: [{podSelector: {matchLabels: {/: b}}}, {ipBlock: {cidr: x}}]}]";
        assert_eq!(
            invalid(Kind::NetworkPolicy, peers),
            expected([
                (
                    "spec.ingress[1].from[0].namespaceSelector.matchLabels.example.org/a",
                    "\"-\" cannot be the value of a label"
                ),
                (
                    "spec.egress[0].to[0].podSelector.matchLabels./",
                    "\"/\" cannot be the key of a label"
                ),
            ])
        );
    }
}
