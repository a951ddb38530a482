//! The machine in the machine: a node, three pods, an agent.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use weir_testbed::topology::node_with_uplink;
use weir_testbed::traffic::Serve;
use weir_testbed::{
    Agent, AgentOptions, Manifests, Place, Process, Testbed, clean_up_on_interrupt, topology,
};

use crate::samples::{Pod, Samples};
use crate::tell;

pub(crate) const FOO: &str = "foo";
pub(crate) const OTHER: &str = "other";
pub(crate) const SERVER: &str = "hello-web";

const NODE: &str = "demo-node";

pub(crate) struct Cast {
    pub(crate) samples: Samples,
    pub(crate) foo: Place,
    pub(crate) other: Place,
    /// Where the Service is reached: in IPv4 and in IPv6.
    pub(crate) service: Vec<SocketAddr>,
    pub(crate) manifests: Manifests,
    pub(crate) agent: Agent,
    server: Process,
    testbed: Testbed,
    namespaces: Vec<String>,
}

impl Cast {
    /// Makes namespaces, starts the server and the agent. No pod is connected yet: that is the agent's job,
    /// once it reads of them.
    pub(crate) fn assemble(samples: &Path) -> Result<Cast> {
        let samples = Samples::read(samples)?;
        let (service, port) = samples.service(SERVER)?;
        let families: Vec<bool> = service.iter().map(SocketAddr::is_ipv4).collect();
        ensure!(
            families.contains(&true) && families.contains(&false),
            "Service {SERVER} is not of both families"
        );

        let testbed = Testbed::new("demo")?;
        clean_up_on_interrupt(&testbed)?;
        let node = node_with_uplink(&testbed, "node")?.node;
        let pods = [FOO, OTHER, SERVER].map(|name| Ok((name, samples.pod(name)?)));
        let pods = pods.into_iter().collect::<Result<Vec<(&str, Pod)>>>()?;
        let places = pods
            .iter()
            .map(|(name, pod)| testbed.pod_in(&node, name, &pod.netns));
        let places: [Place; 3] = places
            .collect::<Result<Vec<_>>>()?
            .try_into()
            .map_err(|_| anyhow!("three pods"))?;
        let [client, other, server] = places;

        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let echo = any.map(|ip| SocketAddr::new(ip, port)).into();
        let server = server.serve(&Serve {
            name: SERVER.into(),
            echo,
            ..Serve::default()
        })?;
        let options = AgentOptions {
            uplink: Some(topology::UPLINK.into()),
            ..AgentOptions::default()
        };
        let agent = Agent::start(&testbed, &node, NODE, options)?;
        tell::check(&format!(
            "weir-agent runs on node {NODE}, process {}",
            agent.pid()
        ));
        for (name, pod) in &pods {
            let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            tell::check(&format!(
                "{name:<9} namespace {}, to get {}",
                pod.netns,
                addresses.join(" and ")
            ));
        }
        Ok(Cast {
            manifests: agent.manifests(),
            samples,
            foo: client,
            other,
            service,
            agent,
            server,
            testbed,
            namespaces: pods.into_iter().map(|(_, pod)| pod.netns).collect(),
        })
    }

    /// Takes all of it down, and looks that it is gone.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        self.agent.stop()?;
        tell::check("weir-agent ended when asked to");
        self.server.kill9()?;
        let (id, directory) = (
            self.testbed.id().to_string(),
            self.testbed.directory().to_path_buf(),
        );
        let processes = [self.agent.pid(), self.server.pid()];
        self.testbed.remove()?;
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        ensure!(
            !directory.exists() && !mounts.contains(&id),
            "{} is still there",
            directory.display()
        );
        for name in &self.namespaces {
            ensure!(
                !Path::new("/run/netns").join(name).exists(),
                "network namespace {name} is still there"
            );
        }
        for pid in processes {
            ensure!(
                !Path::new("/proc").join(pid.to_string()).exists(),
                "process {pid} is still there"
            );
        }
        tell::check(
            "no process, network namespace, interface, control group, pinned program or file is left",
        );
        Ok(())
    }
}
