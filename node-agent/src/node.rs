//! What an agent drives, wherever its objects come from: the programs, the pods' links, the flow log, the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use tokio::sync::watch;
use tracing::{error, info, warn};
use weir_abi::policy::{NumberKey, NumberValue};
use weir_policy::snapshot::PodId;

use crate::admin::Admin;
use crate::args::Place;
use crate::clock;
use crate::desired::LocalPod;
use crate::flow::names::{Endpoint, Names};
use crate::kernel::{AttachBy, Capacities, Config, OBJECT, Wanted};
use crate::log_reader::LogReader;
use crate::log_settings::log_settings;
use crate::log_wishes::LogWishes;
use crate::metrics::{Build, Metrics};
use crate::names::names;
use crate::network::{Masquerading, NetworkSettings, PortRange};
use crate::node_links::NodeLinks;
use crate::plan::Plan;
use crate::problems::Problems;
use crate::programming::Programming;
use crate::scrape::{Scraped, scrape};
use crate::services::ServicePort;
use crate::sync::Written;
use crate::workloads::PodLink;

/// How often the kernel is looked after where no object changes: what somebody else took away is put back.
pub(crate) const MENDING: Duration = Duration::from_secs(60);
/// How often flows that are over are removed, and losses told.
pub(crate) const SWEEP: Duration = Duration::from_secs(2);

/// What is decided when an agent starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub node_name: String,
    pub place: Place,
    /// Entries of each flow table.
    pub flows: u32,
    /// Records a second and CPU that the programs may write. The log's own budget comes after denials were folded.
    pub log_budget: u32,
    pub clsact: bool,
    /// In place of the file that a FlowLogPolicy names.
    pub flow_log: Option<PathBuf>,
    pub metrics_address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    pub links: NodeLinks,
    pub metrics: Arc<Metrics>,
    programming: Arc<Mutex<Programming>>,
    log: LogReader,
    flow_log: Option<PathBuf>,
    scraped: Arc<Mutex<Scraped>>,
    ready: watch::Sender<bool>,
    problems: Problems,
}

/// All that the node is to be.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub plan: &'a Plan,
    pub pods: &'a BTreeMap<PodId, WantedPod>,
    pub services: &'a [ServicePort],
    /// To the programs the same as Services; the flow log does not call them so.
    pub host_ports: Vec<ServicePort>,
    pub own_addresses: &'a BTreeSet<IpAddr>,
    pub network: NetworkSettings,
    /// Names of interfaces.
    pub uplinks: &'a BTreeSet<String>,
    /// Directories of a cgroup2 file system.
    pub cgroups: &'a BTreeSet<PathBuf>,
    /// Who has which address, for the flow log.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// Look also at what was right before.
    pub mend: bool,
}

/// A pod that is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedPod {
    pub link: PodLink,
    pub log: LogWishes,
    /// Nothing but traffic with its own node is to pass.
    pub closed: bool,
    /// Traffic may reach its interface as soon as it is in the kernel.
    pub open: bool,
}

impl Node {
    /// Loads the programs, and serves metrics and health.
    pub(crate) async fn start(start: Start) -> Result<Self> {
        let config = Config {
            object: OBJECT,
            bpffs: start.place.bpffs.clone(),
            state: start.place.state_dir.clone(),
            capacities: Capacities {
                flows: start.flows,
                ..Capacities::default()
            },
            attach_by: if start.clsact {
                AttachBy::Clsact
            } else {
                AttachBy::Best
            },
        };
        let programming = Programming::open(config, start.log_budget)?;
        let metrics = Arc::new(Metrics::new(Build {
            version: env!("CARGO_PKG_VERSION"),
            abi_version: weir_abi::ABI_VERSION,
        })?);
        let (settings, _) = log_settings(&BTreeMap::new(), start.flow_log.as_deref());
        let no_names = Names {
            node_name: start.node_name.clone(),
            ..Names::default()
        };
        let ring = programming.kernel.ring()?;
        let kernel_lost = kernel_lost(&programming)?;
        let log = LogReader::start(ring, settings, no_names, Arc::clone(&metrics), kernel_lost)?;
        let node = Self {
            name: start.node_name,
            links: NodeLinks::default(),
            metrics,
            programming: Arc::new(Mutex::new(programming)),
            log,
            flow_log: start.flow_log,
            scraped: Arc::default(),
            ready: watch::Sender::new(false),
            problems: Problems::default(),
        };
        node.serve(start.metrics_address).await?;
        Ok(node)
    }

    async fn serve(&self, address: SocketAddr) -> Result<()> {
        let admin = Admin::bind(address)
            .await
            .with_context(|| format!("serving metrics on {address}"))?;
        let (programming, metrics) = (Arc::clone(&self.programming), Arc::clone(&self.metrics));
        let scraped = Arc::clone(&self.scraped);
        let render = move || {
            scrape(&locked(&programming), &locked(&scraped), &metrics)?;
            Ok(metrics.render()?)
        };
        let ready = self.ready.subscribe();
        tokio::spawn(async move {
            if let Err(error) = admin.serve(Arc::new(render), ready, std::future::pending()).await {
                error!(%error, "the server for metrics ended");
            }
        });
        Ok(())
    }

    /// The numbers that were given so far.
    pub(crate) fn numbers(&self) -> Result<BTreeMap<NumberKey, NumberValue>> {
        locked(&self.programming).numbers()
    }

    /// The programs, for as long as the guard lives.
    pub(crate) fn programming(&self) -> MutexGuard<'_, Programming> {
        locked(&self.programming)
    }

    /// Makes the node what it is to be. Programs are attached before policy is written, and pods are opened after.
    /// Whether every pod is connected that is to be.
    pub(crate) async fn apply(&mut self, wish: Wish<'_>) -> Result<bool> {
        let started = Instant::now();
        let links: BTreeMap<PodId, PodLink> = wish
            .pods
            .iter()
            .map(|(id, pod)| (id.clone(), pod.link.clone()))
            .collect();
        let interfaces = self.links.prepare(&links, wish.mend).await;
        let pods: BTreeMap<PodId, LocalPod> = interfaces
            .into_iter()
            .map(|(id, interface)| {
                let wanted = &wish.pods[&id];
                let pod = LocalPod {
                    addresses: wanted.link.addresses.clone(),
                    interface,
                    log: wanted.log,
                    closed: wanted.closed,
                };
                (id, pod)
            })
            .collect();
        let hooks = hooks(&pods, &wish)?;
        let written = self.program(&wish, &pods, &hooks)?;
        let open = wish.pods.iter().filter(|(_, pod)| pod.open);
        let opened = self.links.open(&open.map(|(id, _)| id.clone()).collect()).await;
        self.links.retain(&links, wish.mend).await;
        self.programming().kernel.retain_links(&hooks)?;
        self.observe(&written, started.elapsed());
        if !self.ready.send_replace(true) {
            info!("ready");
        }
        Ok(opened && pods.len() == links.len())
    }

    fn program(&self, wish: &Wish<'_>, pods: &BTreeMap<PodId, LocalPod>, hooks: &Wanted) -> Result<Written> {
        let mut programming = locked(&self.programming);
        attach(&mut programming, hooks)?;
        programming.set_network(wish.network.clone());
        let services = [wish.services, &wish.host_ports].concat();
        let written = programming.program(wish.plan, pods, &services, wish.own_addresses)?;
        self.log.set_names(names(
            &self.name,
            wish.endpoints.clone(),
            wish.services,
            programming.rules(),
            clock::wall_offset()?,
        ));
        Ok(written)
    }

    fn observe(&self, written: &Written, took: Duration) {
        self.metrics
            .observe_sync(took, &written.entries, u64::from(written.revision));
        locked(&self.scraped).log = self.log.counts();
        if !written.entries.is_empty() {
            let entries: u64 = written.entries.values().sum();
            info!(entries, revision = written.revision, ?took, "programmed");
        }
    }

    /// Lets the log follow the FlowLogPolicies; the names of those whose settings do not hold.
    pub(crate) fn follow_logs(&self, plan: &Plan) -> Vec<String> {
        let (settings, others) = log_settings(&plan.flow_logs, self.flow_log.as_deref());
        self.log.set_settings(settings);
        others
    }

    /// Logs what has changed, and counts.
    pub(crate) fn tell(&mut self, problems: Problems, objects: BTreeMap<&'static str, u64>) {
        problems.log_changes(&self.problems);
        let mut scraped = locked(&self.scraped);
        scraped.objects = objects;
        scraped.problems.clone_from(&problems.counts);
        drop(scraped);
        self.problems = problems;
    }

    /// What is done from time to time.
    pub(crate) fn sweep(&self) {
        locked(&self.scraped).log = self.log.counts();
        match kernel_lost(&locked(&self.programming)) {
            Ok(total) => self.log.set_kernel_lost(total),
            Err(error) => warn!(%error, "cannot read how many records were lost"),
        }
        let swept = {
            let kernel = &mut locked(&self.programming).kernel;
            kernel.now().and_then(|now| Ok(kernel.expire_flows(now)?))
        };
        match swept {
            Ok(flows) => locked(&self.scraped).flows = flows,
            Err(error) => warn!(%error, "cannot remove flows that are over"),
        }
    }
}

/// Records that the programs could not write, over all rules.
fn kernel_lost(programming: &Programming) -> Result<u64> {
    Ok(programming
        .kernel
        .rule_counts()?
        .values()
        .map(|count| count.lost)
        .sum())
}

/// Programs before policy: what they do not know they drop.
fn attach(programming: &mut Programming, wanted: &Wanted) -> Result<()> {
    for ifindex in &wanted.pods {
        programming.kernel.attach_pod(*ifindex)?;
    }
    for ifindex in &wanted.uplinks {
        programming.kernel.attach_uplink(*ifindex)?;
    }
    for cgroup in &wanted.cgroups {
        programming.kernel.attach_cgroup(cgroup)?;
    }
    Ok(())
}

fn hooks(pods: &BTreeMap<PodId, LocalPod>, wish: &Wish<'_>) -> Result<Wanted> {
    let uplinks: Result<BTreeSet<u32>> = wish
        .uplinks
        .iter()
        .map(|name| if_nametoindex(name.as_str()).with_context(|| format!("uplink {name}")))
        .collect();
    Ok(Wanted {
        pods: pods.values().map(|pod| pod.interface.host_ifindex).collect(),
        uplinks: uplinks?,
        cgroups: wish.cgroups.clone(),
    })
}

/// Pods speak to the outside by the first of these addresses of an uplink, in each family.
pub(crate) fn masquerading(
    addresses: &BTreeSet<IpAddr>,
    ports: PortRange,
    non_masquerade_cidrs: BTreeSet<IpNet>,
) -> Masquerading {
    Masquerading {
        v4: addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }),
        v6: addresses.iter().find_map(|ip| match ip {
            IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(*v6),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        }),
        ports,
        non_masquerade_cidrs,
    }
}

/// What the node's own interfaces have, loopback aside.
pub(crate) fn own_addresses() -> Result<BTreeSet<IpAddr>> {
    addresses(|_| true)
}

/// What those of the node's interfaces have whose names are asked for, loopback aside.
pub(crate) fn addresses(of_interface: impl Fn(&str) -> bool) -> Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs().context("reading the node's addresses")?;
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    Ok(addresses
        .filter(|interface| of_interface(&interface.interface_name))
        .filter_map(|interface| interface.address.and_then(ip))
        .filter(|ip| !ip.is_loopback())
        .collect())
}

/// Values are whole between any two statements, so a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
