//! A node with the real agent, a policy between two pods, and the manifests of a large cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weir_testbed::{
    Agent, AgentOptions, Endpoint, EndpointSlice, Manifests, Place, Pod, Port, Service, Testbed,
};

use super::idle;
use super::load_manifests as load_texts;
use super::path::{PORT, answers};
use crate::load::Load;
use crate::report::progress;

const CLIENT: [IpAddr; 2] = addresses(2);
pub(super) const SERVER: [IpAddr; 2] = addresses(3);
const STRANGER: [IpAddr; 2] = addresses(4);
pub(super) const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));

const NAMESPACE: &str = "bench";

/// The measuring server has five, for TCP and for UDP.
const PORTS: u16 = 5;

/// A hundred thousand manifests take an agent some time.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);

/// How long it is given to come to rest.
const SETTLING: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct WeirNode {
    pub(super) client: Place,
    pub(super) server: Place,
    stranger: Place,
    pub(super) agent: Agent,
}

/// Of the server's connections, as the agent counts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Logged {
    pub(super) connections: f64,
    pub(super) written: f64,
    lost: f64,
}

impl Logged {
    /// Whether every connection is accounted for.
    fn is_complete(&self) -> bool {
        self.written + self.lost >= self.connections
    }
}

impl WeirNode {
    /// Returns when the load is in the kernel.
    pub(super) fn start(testbed: &Testbed, name: &str, load: &Load) -> Result<WeirNode> {
        let node = testbed.host(name)?;
        let manifests = Agent::manifests_of(testbed, name)?;
        manifests.namespace(NAMESPACE, &BTreeMap::new())?;
        let pod = |role: &str, addresses: [IpAddr; 2]| -> Result<Place> {
            let place = testbed.pod(&node, &format!("{name}-{role}"))?;
            manifests.pod(&Pod {
                namespace: NAMESPACE.into(),
                name: role.into(),
                labels: BTreeMap::from([("app".into(), role.into())]),
                node: name.into(),
                addresses: addresses.into(),
                netns: place.netns_path(),
                ports: Vec::new(),
            })?;
            Ok(place)
        };
        let (client, server, stranger) = (
            pod("client", CLIENT)?,
            pod("server", SERVER)?,
            pod("stranger", STRANGER)?,
        );
        write_policy(&manifests)?;
        write_service(&manifests, name)?;
        progress(&format!("tax: the agent of {name}"));
        // Each its own maps.
        let bpffs = testbed.bpffs().join(name);
        let arguments = vec!["--bpffs".to_owned(), bpffs.display().to_string()];
        let options = AgentOptions {
            arguments,
            ..AgentOptions::default()
        };
        let agent = Agent::start(testbed, &node, name, options)?;
        let node = WeirNode {
            client,
            server,
            stranger,
            agent,
        };
        progress(&format!(
            "tax: {} pods and {} services for {name}",
            load.addresses, load.services
        ));
        load_texts::write(&manifests, load)?;
        node.wait_until_loaded(load)?;
        Ok(node)
    }

    fn wait_until_loaded(&self, load: &Load) -> Result<()> {
        let loaded = || {
            let missing = self.missing(load)?;
            ensure!(
                missing.is_empty(),
                "not all of the load is in the maps: {}",
                missing.join(", ")
            );
            Ok(())
        };
        retry(PATIENCE, loaded)
    }

    /// Gives the agent time to have nothing more to do: it would disturb what is measured beside it.
    pub(super) fn settle(&mut self, name: &str) -> Result<()> {
        if !idle::comes_to_rest(self.agent.process().pid(), SETTLING)? {
            progress(&format!("tax: the agent of {name} stays busy: figures will vary"));
        }
        Ok(())
    }

    /// What of the load is not in the maps, for people.
    fn missing(&self, load: &Load) -> Result<Vec<String>> {
        let wanted = [
            ("addresses", load.addresses),
            ("services", load.services),
            ("backends", load.backends),
            ("policy", load.policy),
        ];
        let mut missing = Vec::new();
        for (map, wanted) in wanted {
            let entries = self
                .agent
                .metric("weir_map_entries", &[&format!("map=\"{map}\"")])?;
            if entries < f64::from(wanted) {
                missing.push(format!("{map} has {entries} of {wanted}"));
            }
        }
        Ok(missing)
    }

    /// What the flow log made of all connections.
    pub(super) fn logged(&self) -> Result<Logged> {
        let logged = || {
            let logged = Logged {
                connections: self
                    .agent
                    .metric("weir_rule_connections_allowed_total", &["name=\"server\""])?,
                written: self
                    .agent
                    .metric("weir_flow_records_total", &["disposition=\"allow\""])?,
                lost: self.agent.metric("weir_flow_records_lost_total", &[])?,
            };
            ensure!(
                logged.is_complete(),
                "connections that are neither logged nor counted as lost: {logged:?}"
            );
            Ok(logged)
        };
        retry(PATIENCE, logged)
    }

    /// A policy that lets everybody in would cost little.
    pub(super) fn ensure_policy_holds(&self, cpu: usize) -> Result<()> {
        for to in SERVER.into_iter().chain([SERVICE]) {
            let got_through = answers(&self.stranger, to, cpu).context("the stranger")?;
            ensure!(!got_through, "the stranger reaches {to}, which policy denies");
        }
        Ok(())
    }
}

/// Until it succeeds. A busy agent may also be too slow in answering.
fn retry<T>(patience: Duration, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > patience => {
                return Err(error.context(format!("after {patience:?}")));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// The server lets the client in, and talks itself with pods of the load only; everything is logged.
fn write_policy(manifests: &Manifests) -> Result<()> {
    let load = json!({ "namespaceSelector": {}, "podSelector": load_texts::any_pod() });
    let client = json!({ "podSelector": { "matchLabels": { "app": "client" } } });
    let spec = json!({
        "podSelector": { "matchLabels": { "app": "server" } },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [client] }, { "from": [load] }],
        "egress": [{ "to": [load] }],
    });
    manifests.network_policy(NAMESPACE, "server", &spec)?;
    let log = json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1",
        "kind": "FlowLogPolicy",
        "metadata": { "name": "everything" },
        "spec": { "budget": { "recordsPerSecond": 1_000_000 } },
    });
    manifests.write_object("flowlogpolicy-everything.yaml", &log)
}

fn write_service(manifests: &Manifests, node: &str) -> Result<()> {
    let port = |protocol: &str, port: u16| Port {
        name: format!("{}-{port}", protocol.to_lowercase()),
        protocol: protocol.into(),
        port,
        target: port,
    };
    let ports: Vec<Port> = (PORT..PORT + PORTS)
        .flat_map(|number| [port("TCP", number), port("UDP", number)])
        .collect();
    manifests.service(&Service {
        namespace: NAMESPACE.into(),
        name: "server".into(),
        cluster_ips: vec![SERVICE],
        ports: ports.clone(),
    })?;
    manifests.endpoint_slice(&EndpointSlice {
        namespace: NAMESPACE.into(),
        name: "server-v4".into(),
        service: "server".into(),
        ports,
        endpoints: vec![Endpoint {
            address: SERVER[0],
            node: node.into(),
            ready: true,
        }],
    })
}

const fn addresses(last: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, last as u16)),
    ]
}
