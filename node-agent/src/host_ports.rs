//! Host ports: a port of the node that leads to one pod of it.
//!
//! To the programs that is a Service at the node's address with one backend. A `hostIP` of loopback is reached by the
//! node's own sockets only, and by no packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Container, Pod};
use weir_policy::model::Protocol;
use weir_policy::snapshot::PodId;

use crate::services::ServicePort;

/// A pod that has its addresses on this node's part of the pod network, and is not over.
#[derive(Debug, Clone, Copy)]
pub struct PodWithPorts<'a> {
    pub id: &'a PodId,
    pub pod: &'a Pod,
    /// Not more than one of each family counts.
    pub addresses: &'a [IpAddr],
}

/// A host port that leads nowhere. The API server checks the numbers, and the scheduler that no two pods of a node want
/// the same; neither knows of pods that were put on a node by hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("Pod {pod}: {field}: {message}")]
pub struct HostPortProblem {
    pub pod: PodId,
    /// Like `spec.containers[0].ports[1].hostPort`.
    pub field: String,
    pub message: String,
}

/// What the host ports of these pods are at the node's addresses. Both results are sorted; the order of the pods
/// carries no meaning. Of two pods that want the same port at the same address, the first by name has it.
///
/// A pod on the host's network binds its ports itself, and has none here.
pub fn host_ports<'a>(
    pods: impl IntoIterator<Item = PodWithPorts<'a>>,
    node_addresses: &BTreeSet<IpAddr>,
) -> (Vec<ServicePort>, Vec<HostPortProblem>) {
    let pods: BTreeMap<&PodId, PodWithPorts<'a>> = pods.into_iter().map(|pod| (pod.id, pod)).collect();
    let mut placed = Placed::default();
    for pod in pods.values().filter(|pod| !is_on_host_network(pod.pod)) {
        for (field, container) in containers(pod.pod) {
            for (i, port) in container.ports.iter().flatten().enumerate() {
                let Some(host_port) = port.host_port.filter(|number| *number != 0) else {
                    continue;
                };
                let wanted = Wanted {
                    pod,
                    field: format!("{field}.ports[{i}]"),
                    host_ip: port.host_ip.as_deref().unwrap_or_default(),
                    host_port,
                    container_port: port.container_port,
                    protocol: port.protocol.as_deref().unwrap_or("TCP"),
                    name: port.name.as_deref().unwrap_or_default(),
                };
                placed.place(&wanted, node_addresses);
            }
        }
    }
    placed.problems.sort();
    (placed.ports.into_values().collect(), placed.problems)
}

/// One port of a container, as its manifest has it.
struct Wanted<'a> {
    pod: &'a PodWithPorts<'a>,
    field: String,
    host_ip: &'a str,
    host_port: i32,
    container_port: i32,
    protocol: &'a str,
    name: &'a str,
}

#[derive(Default)]
struct Placed {
    /// By address, port and protocol.
    ports: BTreeMap<(IpAddr, u16, u8), ServicePort>,
    problems: Vec<HostPortProblem>,
}

impl Placed {
    fn place(&mut self, wanted: &Wanted<'_>, node_addresses: &BTreeSet<IpAddr>) {
        let at = match frontends(wanted.host_ip, node_addresses) {
            Ok(addresses) => addresses,
            Err(message) => return self.problem(wanted, "hostIP", message),
        };
        let Some(port) = number(wanted.host_port) else {
            return self.problem(wanted, "hostPort", no_port(wanted.host_port));
        };
        let Some(target) = number(wanted.container_port) else {
            return self.problem(wanted, "containerPort", no_port(wanted.container_port));
        };
        let Some(protocol) = Protocol::parse(wanted.protocol).map(Protocol::number) else {
            let message = format!(
                "{:?} is none of TCP, UDP and SCTP; nothing leads to the port",
                wanted.protocol
            );
            return self.problem(wanted, "protocol", message);
        };
        for address in at {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4();
            let Some(backend) = wanted.pod.addresses.iter().find(same_family) else {
                continue;
            };
            let place = (address, port, protocol);
            if let Some(owner) = self.ports.get(&place) {
                let message = format!(
                    "{} port {port} of {address} is taken by Pod {}/{}, which keeps it",
                    wanted.protocol, owner.namespace, owner.name
                );
                self.problem(wanted, "hostPort", message);
                continue;
            }
            let service = ServicePort {
                namespace: wanted.pod.id.namespace.clone(),
                name: wanted.pod.id.name.clone(),
                port_name: wanted.name.to_owned(),
                protocol,
                address,
                port,
                backends: vec![(*backend, target)],
            };
            self.ports.insert(place, service);
        }
    }

    fn problem(&mut self, wanted: &Wanted<'_>, field: &str, message: String) {
        self.problems.push(HostPortProblem {
            pod: wanted.pod.id.clone(),
            field: format!("{}.{field}", wanted.field),
            message,
        });
    }
}

/// The addresses at which a `hostIP` is served: none means every one of the node's, loopback included.
fn frontends(host_ip: &str, node_addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, String> {
    let of_node = |wish: fn(&IpAddr) -> bool| -> BTreeSet<IpAddr> {
        let loopback = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        let all = node_addresses.iter().copied().chain(loopback);
        all.filter(|address| wish(address) && !is_of_a_link(address))
            .collect()
    };
    if host_ip.is_empty() {
        return Ok(of_node(|_| true));
    }
    match host_ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ok(of_node(IpAddr::is_ipv4)),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(of_node(IpAddr::is_ipv6)),
        Ok(address) => Ok([address].into()),
        Err(_) => Err(format!("{host_ip:?} is no IP address; nothing leads to the port")),
    }
}

/// Such an address means something with an interface only.
fn is_of_a_link(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn no_port(number: i32) -> String {
    format!("{number} is no port: they go from 1 to 65535; nothing leads to it")
}

fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// With their places in the manifest. Of the containers that run before the others, those that go on beside them
/// (sidecars) can have ports.
fn containers(pod: &Pod) -> impl Iterator<Item = (String, &Container)> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let main = spec.containers.iter().enumerate();
        let main = main.map(|(i, container)| (format!("spec.containers[{i}]"), container));
        let first = spec.init_containers.iter().flatten().enumerate();
        let first = first.map(|(i, container)| (format!("spec.initContainers[{i}]"), container));
        main.chain(first.filter(|(_, container)| container.restart_policy.as_deref() == Some("Always")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(ports: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}))
            .expect("a pod")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn placed(pods: &[(&str, &Pod, &[IpAddr])]) -> (Vec<String>, Vec<String>) {
        let ids: Vec<PodId> = pods.iter().map(|(name, ..)| PodId::new("ns", *name)).collect();
        let pods = ids
            .iter()
            .zip(pods)
            .map(|(id, (_, pod, addresses))| PodWithPorts { id, pod, addresses });
        let node = ["192.0.2.1", "2001:db8::1", "fe80::1"].map(ip).into();
        let (ports, problems) = host_ports(pods, &node);
        let ports = ports.iter().map(|port| {
            let backends: Vec<String> = port
                .backends
                .iter()
                .map(|(ip, port)| format!("{ip} {port}"))
                .collect();
            format!(
                "{} {}/{} -> {} {}",
                port.address,
                port.port,
                port.protocol,
                port.name,
                backends.join(",")
            )
        });
        (
            ports.collect(),
            problems.iter().map(ToString::to_string).collect(),
        )
    }

    /// As upstream's `HostPort validates that there is no conflict between pods with same hostPort but different
    /// hostIP and protocol` has them.
    #[test]
    fn one_port_at_several_addresses_and_by_several_protocols() {
        let pods = [
            pod(json!([{"containerPort": 8080, "hostPort": 54323, "hostIP": "127.0.0.1"}])),
            pod(json!([{"containerPort": 8080, "hostPort": 54323, "hostIP": "192.0.2.1"}])),
            pod(
                json!([{"containerPort": 8080, "hostPort": 54323, "hostIP": "192.0.2.1", "protocol": "UDP"}]),
            ),
        ];
        let addresses = [[ip("10.0.0.1")], [ip("10.0.0.2")], [ip("10.0.0.3")]];
        let expected = [
            "127.0.0.1 54323/6 -> pod1 10.0.0.1 8080",
            "192.0.2.1 54323/6 -> pod2 10.0.0.2 8080",
            "192.0.2.1 54323/17 -> pod3 10.0.0.3 8080",
        ];
        assert_eq!(
            placed(&[
                ("pod3", &pods[2], &addresses[2]),
                ("pod1", &pods[0], &addresses[0]),
                ("pod2", &pods[1], &addresses[1]),
            ]),
            (expected.map(str::to_owned).into(), vec![])
        );
    }

    #[test]
    fn no_address_means_all_of_the_nodes() {
        let pod = pod(json!([
            {"containerPort": 80, "hostPort": 1}, {"containerPort": 81},
            {"containerPort": 82, "hostPort": 2, "hostIP": "0.0.0.0"}, {"containerPort": 83, "hostPort": 3, "hostIP": "::"},
        ]));
        let expected = [
            "127.0.0.1 1/6 -> a 10.0.0.1 80",
            "127.0.0.1 2/6 -> a 10.0.0.1 82",
            "192.0.2.1 1/6 -> a 10.0.0.1 80",
            "192.0.2.1 2/6 -> a 10.0.0.1 82",
            "::1 1/6 -> a fd00::1 80",
            "::1 3/6 -> a fd00::1 83",
            "2001:db8::1 1/6 -> a fd00::1 80",
            "2001:db8::1 3/6 -> a fd00::1 83",
        ];
        let both = [ip("10.0.0.1"), ip("fd00::1")];
        assert_eq!(
            placed(&[("a", &pod, &both)]),
            (expected.map(str::to_owned).into(), vec![])
        );
    }

    #[test]
    fn what_cannot_be_is_left_out_and_said() {
        let bad = pod(json!([
            {"containerPort": 80, "hostPort": 70000}, {"containerPort": 0, "hostPort": 1},
            {"containerPort": 80, "hostPort": 2, "hostIP": "x"}, {"containerPort": 80, "hostPort": 3, "protocol": "ICMP"},
        ]));
        let one = pod(json!([{"containerPort": 80, "hostPort": 4, "hostIP": "192.0.2.1"}]));
        let address = [ip("10.0.0.1")];
        let mut on_host = one.clone();
        on_host.spec.get_or_insert_default().host_network = Some(true);
        let (ports, problems) = placed(&[
            ("bad", &bad, &address),
            ("second", &one, &[ip("10.0.0.3")]),
            ("first", &one, &[ip("10.0.0.2")]),
            ("on-host", &on_host, &[ip("192.0.2.1")]),
        ]);
        assert_eq!(ports, ["192.0.2.1 4/6 -> first 10.0.0.2 80"]);
        assert_eq!(
            problems,
            [
                "Pod ns/bad: spec.containers[0].ports[0].hostPort: 70000 is no port: they go from 1 to 65535; nothing leads to it",
                "Pod ns/bad: spec.containers[0].ports[1].containerPort: 0 is no port: they go from 1 to 65535; nothing leads to it",
                "Pod ns/bad: spec.containers[0].ports[2].hostIP: \"x\" is no IP address; nothing leads to the port",
                "Pod ns/bad: spec.containers[0].ports[3].protocol: \"ICMP\" is none of TCP, UDP and SCTP; nothing leads to the port",
                "Pod ns/second: spec.containers[0].ports[0].hostPort: TCP port 4 of 192.0.2.1 is taken by Pod ns/first, which keeps it",
            ]
        );
    }
}
