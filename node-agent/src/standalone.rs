//! Standalone mode: the operator's plan and the agent's sync in one process, fed from manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};
use weir_policy::snapshot::PodId;

use crate::admin::Admin;
use crate::args::Standalone;
use crate::clock;
use crate::desired::LocalPod;
use crate::flow::names::Names;
use crate::kernel::{AttachBy, Capacities, Config, OBJECT, Wanted};
use crate::log_reader::LogReader;
use crate::log_settings::log_settings;
use crate::log_wishes::log_wishes;
use crate::manifests::watch::{WatchSettings, watch as watch_directory};
use crate::manifests::{ManifestProblem, Manifests, Objects};
use crate::metrics::{Build, Metrics};
use crate::names::names;
use crate::node_links::NodeLinks;
use crate::plan::{Plan, plan};
use crate::problems::Problems;
use crate::programming::Programming;
use crate::scrape::{Scraped, scrape};
use crate::workloads::prepare_node;

/// Records a second and CPU that the programs may write. The log's own budget comes after denials were folded.
const KERNEL_LOG_BUDGET: u32 = 20_000;
/// How often the kernel is looked after where no manifest changes: what somebody else took away is put back.
const MENDING: Duration = Duration::from_secs(60);
/// How often flows that are over are removed, and losses told.
const SWEEP: Duration = Duration::from_secs(2);

/// Runs until it is told to end. What is in the kernel goes on without it.
///
/// # Errors
///
/// If it cannot start. Once it runs, errors are logged and tried again.
pub async fn run(args: Standalone) -> Result<()> {
    prepare_node().context("preparing the node's network namespace")?;
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
            _ = sweep.tick() => agent.sweep(),
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
    links: NodeLinks,
    problems: Problems,
    programming: Arc<Mutex<Programming>>,
    log: LogReader,
    metrics: Arc<Metrics>,
    scraped: Arc<Mutex<Scraped>>,
    ready: watch::Sender<bool>,
    /// What the kernel holds; nothing after an error.
    done: Option<Done>,
}

/// All that a reconciliation follows from.
#[derive(Debug, PartialEq)]
struct Wish {
    objects: Objects,
    problems: Vec<ManifestProblem>,
    own_addresses: BTreeSet<IpAddr>,
}

struct Done {
    wish: Wish,
    at: Instant,
}

impl Agent {
    async fn start(args: Standalone) -> Result<Self> {
        let config = Config {
            object: OBJECT,
            bpffs: args.place.bpffs.clone(),
            state: args.place.state_dir.clone(),
            capacities: Capacities {
                flows: args.flows,
                ..Capacities::default()
            },
            attach_by: if args.clsact {
                AttachBy::Clsact
            } else {
                AttachBy::Best
            },
        };
        let programming = Programming::open(config, KERNEL_LOG_BUDGET)?;
        let metrics = Arc::new(Metrics::new(Build {
            version: env!("CARGO_PKG_VERSION"),
            abi_version: weir_abi::ABI_VERSION,
        })?);
        let (settings, _) = log_settings(&BTreeMap::new(), args.flow_log.as_deref());
        let no_names = Names {
            node_name: args.node_name.clone(),
            ..Names::default()
        };
        let ring = programming.kernel.ring()?;
        let kernel_lost = kernel_lost(&programming)?;
        let log = LogReader::start(ring, settings, no_names, Arc::clone(&metrics), kernel_lost)?;
        let agent = Self {
            manifests: Manifests::new(&args.manifests),
            links: NodeLinks::default(),
            problems: Problems::default(),
            programming: Arc::new(Mutex::new(programming)),
            log,
            metrics,
            scraped: Arc::default(),
            ready: watch::Sender::new(false),
            done: None,
            args,
        };
        agent.serve().await?;
        Ok(agent)
    }

    async fn serve(&self) -> Result<()> {
        let address = self.args.metrics_address;
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
        let wanted = Wish {
            objects,
            problems,
            own_addresses,
        };
        if self
            .done
            .as_ref()
            .is_some_and(|done| done.wish == wanted && done.at.elapsed() < MENDING)
        {
            return;
        }
        self.done = None;
        match self.try_reconcile(&wanted).await {
            // A pod that could not be connected is tried again.
            Ok(connected) => {
                self.done = connected.then(|| Done {
                    wish: wanted,
                    at: Instant::now(),
                })
            }
            Err(error) => {
                self.metrics.add_sync_error();
                let error = format!("{error:#}");
                error!(
                    error,
                    "the kernel does not hold what the manifests say; trying again"
                );
            }
        }
    }

    /// Whether every pod is connected.
    async fn try_reconcile(&mut self, wish: &Wish) -> Result<bool> {
        let started = Instant::now();
        let objects = &wish.objects;
        let node = self.args.node_name.clone();
        let snapshot = objects.snapshot(&node);
        let wanted = objects.local_pods(&node);
        let numbers = locked(&self.programming).numbers()?;
        let plan = plan(&snapshot, &node, &numbers);
        let interfaces = self.links.prepare(&wanted, self.args.mtu).await;
        let pods: BTreeMap<PodId, LocalPod> = wanted
            .iter()
            .filter_map(|pod| {
                let local = LocalPod {
                    addresses: pod.addresses.clone(),
                    interface: *interfaces.get(&pod.id)?,
                    log: log_wishes(&snapshot, &pod.id, snapshot.pods.get(&pod.id)?, &plan.flow_logs),
                    closed: objects.is_closed(&pod.id.namespace),
                };
                Some((pod.id.clone(), local))
            })
            .collect();
        let others = self.follow_logs(&plan);
        let problem_counts = self
            .problems
            .tell(&self.manifests, &wish.problems, &plan.problems, &others);
        let written = {
            let mut programming = locked(&self.programming);
            attach(&mut programming, &pods, &self.args)?;
            let services = objects.service_ports();
            let written = programming.program(&plan, &pods, &services, &wish.own_addresses)?;
            self.log
                .set_names(names(&node, objects, programming.rules(), clock::wall_offset()?));
            written
        };
        let open = self.links.open().await;
        self.links
            .retain(&wanted.iter().map(|pod| pod.id.clone()).collect())
            .await;
        locked(&self.programming)
            .kernel
            .retain_links(&attachments(&pods, &self.args)?)?;
        self.metrics
            .observe_sync(started.elapsed(), &written.entries, u64::from(written.revision));
        {
            let mut scraped = locked(&self.scraped);
            scraped.objects = objects.counts();
            scraped.problems = problem_counts;
            scraped.log = self.log.counts();
        }
        if !written.entries.is_empty() {
            let entries: u64 = written.entries.values().sum();
            info!(entries, revision = written.revision, took = ?started.elapsed(), "programmed");
        }
        self.announce_ready()?;
        Ok(open && pods.len() == wanted.len())
    }

    /// Settings of the log; the names of policies whose settings do not hold.
    fn follow_logs(&self, plan: &Plan) -> Vec<String> {
        let (settings, others) = log_settings(&plan.flow_logs, self.args.flow_log.as_deref());
        self.log.set_settings(settings);
        others
    }

    fn announce_ready(&self) -> Result<()> {
        if self.ready.send_replace(true) {
            return Ok(());
        }
        info!("ready");
        match &self.args.ready_file {
            Some(path) => std::fs::write(path, "").with_context(|| format!("writing {}", path.display())),
            None => Ok(()),
        }
    }

    /// What is done from time to time.
    fn sweep(&self) {
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
fn attach(programming: &mut Programming, pods: &BTreeMap<PodId, LocalPod>, args: &Standalone) -> Result<()> {
    let wanted = attachments(pods, args)?;
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

fn attachments(pods: &BTreeMap<PodId, LocalPod>, args: &Standalone) -> Result<Wanted> {
    let uplinks: Result<BTreeSet<u32>> = args
        .uplink
        .iter()
        .map(|name| if_nametoindex(name.as_str()).with_context(|| format!("uplink {name}")))
        .collect();
    Ok(Wanted {
        pods: pods.values().map(|pod| pod.interface.host_ifindex).collect(),
        uplinks: uplinks?,
        cgroups: args.cgroup.iter().cloned().collect(),
    })
}

/// What the node's own interfaces have, loopback aside.
fn own_addresses() -> Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs().context("reading the node's addresses")?;
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    Ok(addresses
        .filter_map(|interface| interface.address.and_then(ip))
        .filter(|ip| !ip.is_loopback())
        .collect())
}

/// Values are whole between any two statements, so a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
