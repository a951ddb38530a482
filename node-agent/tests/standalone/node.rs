//! A node with an agent, a host outside, and pods.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use weir_testbed::topology::{UPLINK, Uplink, node_with_uplink};
use weir_testbed::traffic::Serve;
use weir_testbed::{
    Agent, AgentOptions, Endpoint, EndpointSlice, Manifests, Place, Pod, Port, Process, Service, Testbed,
};

use crate::address::{Address, End, pod_ips, service_ips};
use crate::policy::NAMESPACE;
use crate::wait::until;

/// The node's name in manifests.
pub(crate) const NODE: &str = "n1";

/// Every pod, and the host outside, echoes here and here.
pub(crate) const PORT: u16 = 8080;
pub(crate) const OTHER_PORT: u16 = 9091;
/// Echoes late ([`Serve::late_echo`]).
pub(crate) const LATE: u16 = 8082;
/// Nobody listens here.
pub(crate) const CLOSED: u16 = 7;
/// Of a Service; leads to [`PORT`].
pub(crate) const SERVICE_PORT: u16 = 80;

pub(crate) struct Node {
    /// First, so that the log is there still when it is dropped.
    witness: Witness,
    pub(crate) agent: Agent,
    pub(crate) manifests: Manifests,
    /// The node itself.
    pub(crate) end: End,
    pub(crate) outside: End,
    /// The same host by addresses that nobody's link has.
    pub(crate) world: End,
    pub(crate) testbed: Testbed,
    servers: Mutex<Vec<Process>>,
}

impl Node {
    pub(crate) fn start(test: &str) -> Result<Node> {
        Node::with(test, &[])
    }

    /// With further arguments for the agent.
    pub(crate) fn with(test: &str, arguments: &[&str]) -> Result<Node> {
        let testbed = Testbed::new(test)?;
        let Uplink { node, outside } = node_with_uplink(&testbed, "node")?;
        let servers = vec![serve(&outside, "outside")?, serve(&node, "node")?];
        let options = AgentOptions {
            uplink: Some(UPLINK.into()),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            program: Some(env!("CARGO_BIN_EXE_weir-agent").into()),
        };
        let agent = Agent::start(&testbed, &node, NODE, options)?;
        Ok(Node {
            witness: Witness {
                log: agent.log(),
                content: false,
            },
            manifests: agent.manifests(),
            agent,
            end: End {
                place: node,
                address: Address::new("node", Uplink::NODE),
            },
            outside: End {
                place: outside.clone(),
                address: Address::new("outside", Uplink::OUTSIDE),
            },
            world: End {
                place: outside,
                address: Address::new("world", Uplink::WORLD),
            },
            testbed,
            servers: Mutex::new(servers),
        })
    }

    /// A pod labelled `app=NAME` with addresses that end in `last`, and a server in it. It is in its control group
    /// below the node's.
    pub(crate) fn pod(&self, name: &str, last: u8) -> Result<End> {
        let end = self.place(name, last)?;
        self.describe(&end, &[("app", name)])?;
        Ok(end)
    }

    /// As [`Node::pod`], but for the manifest.
    pub(crate) fn place(&self, name: &str, last: u8) -> Result<End> {
        let place = self.testbed.pod(&self.end.place, name)?;
        self.serve(&place, name)?;
        Ok(End {
            place,
            address: Address::new(name, pod_ips(last)),
        })
    }

    /// Starts a server that ends with the node.
    pub(crate) fn serve(&self, place: &Place, name: &str) -> Result<()> {
        let server = serve(place, name)?;
        self.servers.lock().expect("servers").push(server);
        Ok(())
    }

    /// Writes a pod's manifest, in the default namespace.
    pub(crate) fn describe(&self, pod: &End, labels: &[(&str, &str)]) -> Result<()> {
        self.describe_in(NAMESPACE, pod, labels)
    }

    pub(crate) fn describe_in(&self, namespace: &str, pod: &End, labels: &[(&str, &str)]) -> Result<()> {
        self.manifests.pod(&Pod {
            namespace: namespace.into(),
            name: pod.address.name.clone(),
            labels: map(labels),
            node: NODE.into(),
            addresses: pod.address.ips.into(),
            netns: pod.place.netns_path(),
            ports: vec![port("web", "TCP", PORT, 0), port("dns", "UDP", PORT, 0)],
        })
    }

    /// A pod of another node, at the address of nobody here.
    pub(crate) fn describe_remote(
        &self,
        name: &str,
        ips: [IpAddr; 2],
        labels: &[(&str, &str)],
    ) -> Result<()> {
        self.manifests.pod(&Pod {
            namespace: NAMESPACE.into(),
            name: name.into(),
            labels: map(labels),
            node: "n2".into(),
            addresses: ips.into(),
            netns: "/run/netns/of-another-node".into(),
            ports: Vec::new(),
        })
    }

    pub(crate) fn remove_pod(&self, pod: &End) -> Result<()> {
        self.manifests
            .remove(&format!("pod-{NAMESPACE}-{}.yaml", pod.address.name))
    }

    pub(crate) fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.manifests.namespace(name, &map(labels))
    }

    /// A Service by TCP and UDP, and who answers for it.
    pub(crate) fn service(&self, name: &str, last: u8, endpoints: &[&End]) -> Result<Address> {
        let address = Address::new(name, service_ips(last));
        self.manifests.service(&Service {
            namespace: NAMESPACE.into(),
            name: name.into(),
            cluster_ips: address.ips.into(),
            ports: vec![
                port("tcp", "TCP", SERVICE_PORT, PORT),
                port("udp", "UDP", SERVICE_PORT, PORT),
            ],
        })?;
        self.endpoints(name, PORT, endpoints)?;
        Ok(address)
    }

    /// Replaces who answers for a Service, and at which port.
    pub(crate) fn endpoints(&self, service: &str, at: u16, endpoints: &[&End]) -> Result<()> {
        for (index, family) in ["ipv4", "ipv6"].into_iter().enumerate() {
            let endpoint = |end: &&End| Endpoint {
                address: end.address.ips[index],
                node: NODE.into(),
                ready: true,
            };
            let name = format!("{service}-{family}");
            if endpoints.is_empty() {
                // A slice of nothing does not say of which family it is.
                let file = format!("endpointslice-{NAMESPACE}-{name}.yaml");
                if self.manifests.directory().join(&file).exists() {
                    self.manifests.remove(&file)?;
                }
                continue;
            }
            self.manifests.endpoint_slice(&EndpointSlice {
                namespace: NAMESPACE.into(),
                name,
                service: service.into(),
                ports: vec![port("tcp", "TCP", at, 0), port("udp", "UDP", at, 0)],
                endpoints: endpoints.iter().map(endpoint).collect(),
            })?;
        }
        Ok(())
    }

    /// What the agent has logged, without colours.
    pub(crate) fn log(&self) -> Result<String> {
        let text = fs::read_to_string(self.agent.log()).context("the agent's log")?;
        Ok(without_colours(&text))
    }

    /// The texts of what the agent has logged from one of its modules, in order.
    pub(crate) fn messages(&self, module: &str) -> Result<Vec<String>> {
        let mark = format!(" weir_agent::{module}: ");
        let log = self.log()?;
        Ok(log
            .lines()
            .filter_map(|line| Some(line.split_once(&mark)?.1.to_string()))
            .collect())
    }

    /// Packets that left a program for this reason.
    pub(crate) fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self
            .agent
            .metric("weir_packets_total", &[&format!("reason=\"{reason}\"")])? as u64)
    }

    /// Waits until a metric is as wished.
    pub(crate) fn wait_for_metric(
        &self,
        name: &str,
        labels: &[&str],
        wish: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        until(&format!("{name} {labels:?}"), || {
            let value = self.agent.metric(name, labels)?;
            Ok(if wish(value) {
                Ok(value)
            } else {
                Err(value.to_string())
            })
        })
    }

    /// Ends the agent and removes everything; an error if anything went wrong that nobody asked about.
    pub(crate) fn end(mut self) -> Result<()> {
        let log = self.log()?;
        if let Some(line) = log
            .lines()
            .find(|line| line.contains(" ERROR ") || line.contains("panicked"))
        {
            bail!("the agent logged: {line}");
        }
        if self.agent.process().ended()?.is_none() {
            self.agent.stop()?;
        }
        self.witness.content = true;
        self.testbed.remove()
    }
}

/// Shows what the agent had to say, unless all went well.
struct Witness {
    log: PathBuf,
    content: bool,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if !self.content {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("the end of the agent's log:\n{}", without_colours(&last));
        }
    }
}

fn serve(place: &Place, name: &str) -> Result<Process> {
    let at = |port| {
        [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]
            .map(|ip| SocketAddr::new(ip, port))
    };
    place.serve(&Serve {
        name: name.into(),
        echo: [at(PORT), at(OTHER_PORT)].concat(),
        sink: Vec::new(),
        late_echo: at(LATE).into(),
    })
}

fn port(name: &str, protocol: &str, port: u16, target: u16) -> Port {
    Port {
        name: name.into(),
        protocol: protocol.into(),
        port,
        target,
    }
}

pub(crate) fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
        .collect()
}

/// Takes out `ESC [ … m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}
