//! Standalone mode: the operator's plan and the agent's sync in one process, fed from manifests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use weir_policy::snapshot::{Labels, Snapshot};

use crate::args::Standalone;
use crate::host_ports::{PodWithPorts, host_ports};
use crate::log_wishes::log_wishes;
use crate::manifests::watch::{WatchSettings, watch as watch_directory};
use crate::manifests::{LocalPod, ManifestProblem, Manifests, Objects};
use crate::network::{NetworkSettings, default_non_masquerade_cidrs};
use crate::node::{MENDING, Node, SWEEP, Start, WantedPod, Wish, addresses, masquerading, own_addresses};
use crate::node_links::{POD_INTERFACE, host_ifname};
use crate::plan::{Plan, plan};
use crate::problems::Problems;
use crate::services::ServicePort;
use crate::workloads::{PodLink, prepare_node, reserve_ports};

/// See [`Start::log_budget`].
const KERNEL_LOG_BUDGET: u32 = 20_000;

/// Runs until it is told to end. What is in the kernel goes on without it.
///
/// # Errors
///
/// If it cannot start. Once it runs, errors are logged and tried again.
pub async fn run(args: Standalone) -> Result<()> {
    prepare_node().context("preparing the node's network namespace")?;
    if args.masquerade {
        reserve_ports(args.masquerade_ports).context("reserving ports of the node")?;
    }
    let mut agent = Agent::start(args).await?;
    let mut changes = watch_directory(&agent.args.manifests, WatchSettings::default())
        .context("watching the directory of manifests")?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut sweep = tokio::time::interval(SWEEP);
    agent.reconcile().await;
    loop {
        tokio::select! {
            changed = changes.recv() => match changed {
                Some(()) => agent.reconcile().await,
                None => anyhow::bail!("the watch on the directory of manifests ended"),
            },
            _ = sweep.tick() => agent.node.sweep(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("ending; the kernel goes on with what it has");
    Ok(())
}

struct Agent {
    args: Standalone,
    manifests: Manifests,
    node: Node,
    announced: bool,
    /// What the kernel holds; nothing after an error.
    done: Option<Done>,
}

/// All that a reconciliation follows from.
#[derive(Debug, PartialEq)]
struct Source {
    objects: Objects,
    problems: Vec<ManifestProblem>,
    own_addresses: BTreeSet<IpAddr>,
}

struct Done {
    source: Source,
    at: Instant,
}

impl Agent {
    async fn start(args: Standalone) -> Result<Self> {
        let node = Node::start(Start {
            node_name: args.node_name.clone(),
            place: args.place.clone(),
            flows: args.flows,
            log_budget: KERNEL_LOG_BUDGET,
            clsact: args.clsact,
            flow_log: args.flow_log.clone(),
            metrics_address: args.metrics_address,
        })
        .await?;
        Ok(Self {
            manifests: Manifests::new(&args.manifests),
            node,
            announced: false,
            done: None,
            args,
        })
    }

    /// Makes the kernel hold what the manifests say, if they or the node have changed.
    async fn reconcile(&mut self) {
        let (objects, mut problems) = self.manifests.load();
        problems.extend(objects.problems(&self.args.node_name));
        let own_addresses = match own_addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                error!(%error, "cannot look for the node's addresses; trying again");
                return;
            }
        };
        let source = Source {
            objects,
            problems,
            own_addresses,
        };
        if self
            .done
            .as_ref()
            .is_some_and(|done| done.source == source && done.at.elapsed() < MENDING)
        {
            return;
        }
        self.done = None;
        match self.try_reconcile(&source).await {
            // A pod that could not be connected is tried again.
            Ok(connected) => {
                self.done = connected.then(|| Done {
                    source,
                    at: Instant::now(),
                })
            }
            Err(error) => {
                self.node.metrics.add_sync_error();
                let error = format!("{error:#}");
                error!(
                    error,
                    "the kernel does not hold what the manifests say; trying again"
                );
            }
        }
    }

    /// Whether every pod is connected.
    async fn try_reconcile(&mut self, source: &Source) -> Result<bool> {
        let objects = &source.objects;
        let node = self.args.node_name.as_str();
        let snapshot = objects.snapshot(node);
        let local = objects.local_pods(node);
        let plan = plan(&snapshot, node, &self.node.numbers()?);
        let mut problems = Problems::of_manifests(&self.manifests, &source.problems, &plan.problems);
        problems.add_overruled_logs(&self.node.follow_logs(&plan));
        self.node.tell(problems, objects.counts());
        let pods = local
            .iter()
            .filter_map(|pod| Some((pod.id.clone(), self.wanted_pod(pod, objects, &snapshot, &plan)?)))
            .collect();
        let wish = Wish {
            plan: &plan,
            pods: &pods,
            services: &objects.service_ports(),
            host_ports: host_ports_of(objects, &local, &source.own_addresses),
            own_addresses: &source.own_addresses,
            network: network_settings(&self.args)?,
            uplinks: &self.args.uplink.iter().cloned().collect(),
            cgroups: &self.args.cgroup.iter().cloned().collect(),
            endpoints: objects.endpoints(node),
            mend: true,
        };
        let connected = self.node.apply(wish).await?;
        self.announce_ready()?;
        Ok(connected)
    }

    fn wanted_pod(
        &self,
        pod: &LocalPod,
        objects: &Objects,
        snapshot: &Snapshot,
        plan: &Plan,
    ) -> Option<WantedPod> {
        let namespace = &pod.id.namespace;
        let none = Labels::new();
        let namespace_labels = snapshot.namespaces.get(namespace).unwrap_or(&none);
        let labels = &snapshot.pods.get(&pod.id)?.labels;
        Some(WantedPod {
            link: PodLink {
                netns: pod.netns.clone(),
                host_ifname: host_ifname([namespace.as_str(), &pod.id.name]),
                pod_ifname: POD_INTERFACE.to_owned(),
                addresses: pod.addresses.clone(),
                mtu: self.args.mtu,
            },
            log: log_wishes(&pod.id, labels, namespace_labels, &plan.flow_logs),
            closed: objects.is_closed(namespace),
            open: true,
        })
    }

    fn announce_ready(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.announced, true)
            && let Some(path) = &self.args.ready_file
        {
            std::fs::write(path, "").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

fn host_ports_of(objects: &Objects, pods: &[LocalPod], own_addresses: &BTreeSet<IpAddr>) -> Vec<ServicePort> {
    let with_ports = pods.iter().filter_map(|local| {
        Some(PodWithPorts {
            id: &local.id,
            pod: objects.pods.get(&local.id)?,
            addresses: &local.addresses,
        })
    });
    let (ports, problems) = host_ports(with_ports, own_addresses);
    for problem in problems {
        warn!(%problem, "a host port leads nowhere");
    }
    ports
}

fn network_settings(args: &Standalone) -> Result<NetworkSettings> {
    let Some(uplink) = args.uplink.first().filter(|_| args.masquerade) else {
        return Ok(NetworkSettings::default());
    };
    let non_masquerade_cidrs = if args.non_masquerade_cidr.is_empty() {
        default_non_masquerade_cidrs()
    } else {
        args.non_masquerade_cidr.iter().copied().collect()
    };
    let addresses = addresses(|name| name == uplink)?;
    Ok(NetworkSettings {
        masquerade: Some(masquerading(
            &addresses,
            args.masquerade_ports,
            non_masquerade_cidrs,
        )),
    })
}
