//! The agent of a node in a cluster: what the API server tells and the CNI plugin asks for, brought into the kernel.

mod closed_pods;
mod derived;
mod local_pods;
mod names;
mod surroundings;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{error, info, warn};
use weir_api::DataplaneSettings;
use weir_api::node_dataplane::{AgentInfo, RefusedSetting};
use weir_policy::snapshot::{Labels, PodId};

use crate::api_client::api_client;
use crate::api_writes::{ApiWrites, Owned};
use crate::args::Run;
use crate::attach_pod::{Attachments, Terms};
use crate::cgroup2;
use crate::cni::server::{Request, RequestKind, serve};
use crate::cni::{CniError, code, install};
use crate::log_level::LogFilter;
use crate::log_wishes::log_wishes;
use crate::network::PortRange;
use crate::node::{MENDING, Node, SWEEP, Start, WantedPod, Wish, own_addresses};
use crate::node_bpffs;
use crate::node_plan::{Closed, NodePlan, OwnPod, node_plan};
use crate::node_settings::{Network, NodeAbilities, NodeSettings, node_settings};
use crate::problems::Problems;
use crate::proc_sys;
use crate::report::{Behind, Facts, status};
use crate::watch::{Known, Watches};
use crate::workloads::{prepare_node, reserve_ports};

use closed_pods::ClosedSince;
use derived::{Current, Derived};
use local_pods::{host_ports_of, pods_of};
use names::endpoints;
use surroundings::{DEFAULT_MTU, Ways, network_settings, own_network, pod_mtu, tunnel_interface, uplinks_of};
use told::{counts, problems};

/// What came in so short a time is dealt with together.
const DEBOUNCE: Duration = Duration::from_millis(20);
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(5);
/// After an error.
const RETRY: Duration = Duration::from_secs(1);
/// After a pod could not be connected.
const CONNECT_AGAIN: Duration = Duration::from_secs(5);

/// Runs until it is told to end. What is in the kernel goes on without it.
///
/// # Errors
///
/// If it cannot start. Once it runs, errors are logged and tried again.
pub async fn run(args: Run, log: LogFilter) -> Result<()> {
    node_bpffs::require(&args.place.bpffs)?;
    proc_sys::make_writable().context("making /proc/sys writable for the agent")?;
    prepare_node().context("preparing the node's network namespace")?;
    reserve_ports(PortRange::default()).context("reserving ports of the node")?;
    let (mut agent, mut requests) = Agent::start(args, log).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let due = agent.due();
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => agent.take(request, &mut requests).await,
                None => anyhow::bail!("the socket of the CNI plugin is gone"),
            },
            () = agent.watches.changed() => agent.wake(agent.debounce()),
            () = sleep_until(due.into()) => agent.reconcile().await,
            _ = sweep.tick() => agent.sweep(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("ending; the kernel goes on with what it has");
    Ok(())
}

struct Agent {
    args: Run,
    node: Node,
    watches: Watches,
    writes: ApiWrites,
    log: LogFilter,
    /// Whose processes reach Services by socket.
    cgroup: Option<PathBuf>,
    attachments: Attachments,
    /// Requests that came before the API server had told of the node.
    early: Vec<(Request, Instant)>,
    derived: Derived,
    terms: Terms,
    /// Why the pods are closed that are.
    closed: BTreeMap<PodId, Closed>,
    closed_since: ClosedSince,
    programmed_generation: Option<i64>,
    conditions: Vec<Condition>,
    agent: AgentInfo,
    /// When to reconcile next.
    due: Instant,
    mended: Option<Instant>,
    /// How long the last round took.
    took: Duration,
    /// A size of the flow tables that the kernel did not give, and why.
    refused_flows: Option<(u32, String)>,
    ways: Ways,
    installed: bool,
}

/// What one round found on the way.
#[derive(Debug, Default)]
struct Found {
    problems: Problems,
    /// For the report.
    sentences: Vec<String>,
    refused: Vec<RefusedSetting>,
}

impl Found {
    fn extend(&mut self, other: &Self) {
        self.problems.extend(&other.problems);
        self.sentences.extend(other.sentences.iter().cloned());
        self.refused.extend(other.refused.iter().cloned());
    }
}

impl Agent {
    async fn start(args: Run, log: LogFilter) -> Result<(Self, mpsc::Receiver<Request>)> {
        let settings = NodeSettings::default();
        let node = Node::start(Start {
            node_name: args.node_name.clone(),
            place: args.place.clone(),
            flows: settings.flows,
            log_budget: settings.records_per_second,
            clsact: false,
            flow_log: args.flow_log.clone(),
            metrics_address: args.metrics_address,
        })
        .await?;
        let cgroup = args.cgroup.as_deref().map(find_cgroup2).transpose()?.flatten();
        let mut attachments = Attachments::open(&args.cni_state_dir)?;
        attachments.forget_dead().await;
        let requests = serve(&args.cni_socket, Arc::clone(&node.metrics))?;
        let client = api_client(args.kubeconfig.as_deref()).await?;
        let agent = Self {
            watches: Watches::start(&client, &args.node_name),
            writes: ApiWrites::start(&client, &args.node_name, &args.namespace),
            node,
            log,
            cgroup,
            attachments,
            early: Vec::new(),
            derived: Derived::default(),
            terms: Terms {
                pod_cidrs: Vec::new(),
                mtu: DEFAULT_MTU,
                timeout: settings.pod_start_timeout,
            },
            closed: BTreeMap::new(),
            closed_since: ClosedSince::default(),
            programmed_generation: None,
            conditions: Vec::new(),
            agent: AgentInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                kernel: nix::sys::utsname::uname()?
                    .release()
                    .to_string_lossy()
                    .into_owned(),
            },
            due: Instant::now() + MENDING,
            mended: None,
            took: Duration::ZERO,
            refused_flows: None,
            ways: Ways::default(),
            installed: false,
            args,
        };
        Ok((agent, requests))
    }

    /// A cluster that changes all the time costs a fifth of a CPU at most; while a pod waits, more.
    fn debounce(&self) -> Duration {
        if self.attachments.next_deadline().is_some() {
            return DEBOUNCE;
        }
        (self.took * 4).clamp(DEBOUNCE, LONGEST_DEBOUNCE)
    }

    fn wake(&mut self, after: Duration) {
        self.due = self.due.min(Instant::now() + after);
    }

    fn due(&self) -> Instant {
        let early = self.early.first().map(|(_, until)| *until);
        [Some(self.due), self.attachments.next_deadline(), early]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.due)
    }

    fn sweep(&self) {
        self.writes.beat();
        self.node.sweep();
    }

    /// Deals with a request, and with those that wait behind it, before the kernel is touched for them all.
    async fn take(&mut self, request: Request, requests: &mut mpsc::Receiver<Request>) {
        self.take_one(request).await;
        while let Ok(request) = requests.try_recv() {
            self.take_one(request).await;
        }
    }

    async fn take_one(&mut self, request: Request) {
        let is_add = matches!(request.kind, RequestKind::Add { .. });
        if is_add && self.terms.pod_cidrs.is_empty() {
            self.early.push((request, Instant::now() + self.terms.timeout));
            return;
        }
        let available = self.available();
        if self.attachments.take(request, &self.terms, &available).await {
            self.wake(Duration::ZERO);
        }
    }

    /// Whether a pod could be attached.
    fn available(&self) -> Result<(), CniError> {
        let why = if self.terms.pod_cidrs.is_empty() {
            "the node has no podCIDR yet"
        } else if self.programmed_generation.is_none() {
            "the operator has not said yet what this node is to hold"
        } else {
            return Ok(());
        };
        Err(CniError::new(code::NOT_AVAILABLE, why))
    }

    async fn reconcile(&mut self) {
        self.due = Instant::now() + MENDING;
        let known = self.watches.known();
        self.follow(&known).await;
        let closed = self.derived.current.is_some().then_some(&self.closed);
        let on_timeout = self.settings().0.on_pod_start_timeout;
        self.attachments.expire(Instant::now(), on_timeout, closed).await;
        let Some(current) = self.derived.current.clone().filter(|_| known.is_whole()) else {
            // An agent that has just started does not know what the kernel holds, and takes back nothing.
            if self.derived.waits_for().is_some() {
                self.report(&known, None, Vec::new(), Vec::new());
            }
            return;
        };
        let mend = self.mended.is_none_or(|at| at.elapsed() >= MENDING);
        if mend {
            self.attachments.forget_dead().await;
        }
        let (settings, refused) = self.settings();
        let mut found = Found {
            refused,
            ..Found::default()
        };
        let started = Instant::now();
        let result = self
            .try_reconcile(&known, &current, &settings, mend, &mut found)
            .await;
        self.took = started.elapsed();
        found.refused.sort_by(|a, b| a.field.cmp(&b.field));
        match result {
            Ok(connected) => {
                self.programmed_generation = Some(current.generation);
                self.attachments.answer_connected(&self.node.links).await;
                if mend {
                    self.mended = Some(started);
                }
                if !connected {
                    self.wake(CONNECT_AGAIN);
                }
                self.closed_since.follow(&self.closed, Instant::now());
                if let Some(after) = self.closed_since.next(Instant::now()) {
                    self.wake(after);
                }
                let problems = problems(
                    &self.derived,
                    &current,
                    &found.refused,
                    (&self.closed, &self.closed_since),
                    found.problems,
                );
                self.node.tell(problems, counts(&known, &current));
                self.report(&known, None, found.refused, found.sentences);
                self.install();
            }
            Err(error) => {
                self.node.metrics.add_sync_error();
                let error = format!("{error:#}");
                error!(error, "the kernel does not hold what it should; trying again");
                self.report(
                    &known,
                    Some(Behind::Failed(error)),
                    found.refused,
                    found.sentences,
                );
                self.wake(RETRY);
            }
        }
    }

    /// Takes over what was told since the last time.
    async fn follow(&mut self, known: &Known) {
        self.derived.follow(known, &self.args.node_name);
        let Some(node) = known.node.objects.get(&self.args.node_name) else {
            return self.refuse_early();
        };
        let (settings, _) = self.settings();
        let name = self.args.node_name.as_str();
        let own = own_network(name, &node.addresses, &node.pod_cidrs, &self.derived.book);
        self.terms = Terms {
            pod_cidrs: node.pod_cidrs.clone(),
            mtu: pod_mtu(&settings.network, &node.addresses, &own).await,
            timeout: settings.pod_start_timeout,
        };
        if self.terms.pod_cidrs.is_empty() {
            return self.refuse_early();
        }
        let available = self.available();
        for (request, _) in std::mem::take(&mut self.early) {
            self.attachments.take(request, &self.terms, &available).await;
        }
    }

    /// Those that have waited long enough for the node.
    fn refuse_early(&mut self) {
        let now = Instant::now();
        for (request, _) in self.early.extract_if(.., |(_, until)| *until <= now) {
            let error =
                CniError::try_again_later("the node has no podCIDR, or the API server cannot be reached");
            // Who has stopped waiting needs no answer.
            let _ = request.reply.send(Err(error));
        }
    }

    /// Those of the spec in force, and what of them is refused.
    fn settings(&self) -> (NodeSettings, Vec<RefusedSetting>) {
        let able = NodeAbilities {
            cgroup: self.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_dir()),
            vxlan: true,
            native_routes: true,
            masquerade: true,
        };
        let Some(current) = &self.derived.current else {
            return node_settings(&DataplaneSettings::default(), able);
        };
        let (settings, mut refused) = node_settings(&current.settings, able);
        refused.extend(current.refused.clone());
        refused.sort_by(|a, b| a.field.cmp(&b.field));
        (settings, refused)
    }

    /// Whether every pod is connected.
    async fn try_reconcile(
        &mut self,
        known: &Known,
        current: &Current,
        settings: &NodeSettings,
        mend: bool,
        found: &mut Found,
    ) -> Result<bool> {
        let node_addresses = known
            .node
            .objects
            .get(&self.args.node_name)
            .map(|node| node.addresses.clone())
            .unwrap_or_default();
        self.follow_settings(settings, mend, found)?;
        let attached = self.attachments.by_pod();
        let pods = pods_of(&attached, known);
        let own: BTreeMap<PodId, OwnPod<'_>> = attached
            .iter()
            .map(|(id, attachment)| {
                let own = OwnPod {
                    pod: pods.get(id),
                    addresses: &attachment.addresses,
                };
                (id.clone(), own)
            })
            .collect();
        let NodePlan { plan, closed } =
            node_plan(&current.spec, &self.args.node_name, &self.derived.book, &own);
        found.problems.add_overruled_logs(&self.node.follow_logs(&plan));
        let own_addresses = own_addresses()?;
        let wanted = attached
            .iter()
            .map(|(id, attachment)| {
                let closed = closed.contains_key(id);
                let none = Labels::new();
                let labels = pods.get(id).map_or(&none, |pod| &pod.labels);
                let namespaces = &self.derived.book.identities.namespaces;
                let namespace = namespaces.get(&id.namespace).unwrap_or(&none);
                let wanted = WantedPod {
                    link: attachment.link(),
                    log: log_wishes(id, labels, namespace, &plan.flow_logs),
                    closed,
                    open: self.attachments.may_open(id, closed),
                };
                (id.clone(), wanted)
            })
            .collect();
        let (uplinks, refused) = uplinks_of(&settings.network, &node_addresses)?;
        found.refused.extend(refused);
        let network = &settings.network;
        let with_tunnel = self
            .make_ways(network, &uplinks, &node_addresses, mend, found)
            .await;
        self.closed = closed;
        let wish = Wish {
            plan: &plan,
            pods: &wanted,
            services: &self.derived.services,
            host_ports: host_ports_of(&attached, known, &own_addresses, found),
            own_addresses: &own_addresses,
            network: network_settings(&settings.network, &uplinks, &node_addresses, &self.derived.book)?,
            uplinks: &with_tunnel,
            cgroups: &self.cgroups(settings),
            endpoints: endpoints(&self.args.node_name, &self.derived.book, known, &attached),
            mend,
        };
        let connected = self.node.apply(wish).await?;
        Ok(connected)
    }

    fn follow_settings(&mut self, settings: &NodeSettings, mend: bool, found: &mut Found) -> Result<()> {
        if let Err(error) = self.log.set(settings.log_level) {
            warn!(error = format!("{error:#}"), "the log's level stays");
        }
        let mut programming = self.node.programming();
        programming.set_log_budget(settings.records_per_second)?;
        // To try is dear: the programs are loaded for it.
        self.refused_flows
            .take_if(|(flows, _)| mend || *flows != settings.flows);
        if self.refused_flows.is_none()
            && let Err(error) = programming.set_flows(settings.flows)
        {
            self.refused_flows = Some((settings.flows, format!("{error:#}")));
        }
        found
            .refused
            .extend(self.refused_flows.as_ref().map(|(_, message)| RefusedSetting {
                field: "spec.capacity.flows".to_owned(),
                message: message.clone(),
            }));
        Ok(())
    }

    /// The uplinks, and the tunnel if there is one.
    async fn make_ways(
        &mut self,
        network: &Network,
        uplinks: &BTreeSet<String>,
        node_addresses: &[IpAddr],
        mend: bool,
        found: &mut Found,
    ) -> BTreeSet<String> {
        let node = self.args.node_name.as_str();
        let book = &self.derived.book;
        let own = own_network(node, node_addresses, &self.terms.pod_cidrs, book);
        let made = self.ways.make(network, node, &own, uplinks, book, mend).await;
        found.extend(made);
        uplinks.iter().cloned().chain(tunnel_interface(network)).collect()
    }

    fn cgroups(&self, settings: &NodeSettings) -> BTreeSet<PathBuf> {
        let cgroup = self.cgroup.clone();
        cgroup
            .filter(|_| settings.socket_load_balancing)
            .into_iter()
            .collect()
    }

    /// Puts the status in front of the task that writes it. Without an object there is none to report on.
    fn report(
        &mut self,
        known: &Known,
        failed: Option<Behind>,
        refused: Vec<RefusedSetting>,
        mut problems: Vec<String>,
    ) {
        if let Some(node) = known.node.objects.get(&self.args.node_name) {
            self.writes.set_node(Owned {
                uid: node.uid.clone(),
                taints: node.taints.clone(),
                ready: self.programmed_generation.is_some(),
            });
        }
        let Some(object) = known.dataplane.objects.get(&self.args.node_name) else {
            return;
        };
        if let Some(current) = &self.derived.current {
            let not_understood = current.spec.not_understood.iter();
            problems.extend(not_understood.map(|problem| format!("{}: {}", problem.what, problem.error)));
        }
        problems.extend(self.derived.book.problems.iter().map(ToString::to_string));
        let pods = self.attachments.by_pod();
        let facts = Facts {
            observed_generation: object.generation,
            programmed_generation: self.programmed_generation,
            behind: failed.or_else(|| self.derived.waits_for()),
            policies: self
                .derived
                .current
                .as_ref()
                .map_or(0, |current| current.spec.policies.len()),
            pods: pods.keys().filter(|id| self.node.links.is_open(id)).count(),
            closed: self.closed.clone(),
            refused,
            problems,
            agent: self.agent.clone(),
        };
        if self.conditions.is_empty() {
            let told = object.status["conditions"].clone();
            self.conditions = serde_json::from_value(told).unwrap_or_default();
        }
        let status = status(&facts, &self.conditions, Timestamp::now());
        self.conditions.clone_from(&status.conditions);
        self.writes.report(status);
    }

    /// Tells the container runtime of the plugin, once there is something behind it.
    fn install(&mut self) {
        if std::mem::replace(&mut self.installed, true) {
            return;
        }
        if let Err(error) = self.try_install() {
            self.installed = false;
            error!(
                error = format!("{error:#}"),
                "cannot install the CNI plugin; trying again"
            );
            self.wake(RETRY);
        }
    }

    fn try_install(&self) -> Result<()> {
        if let Some(bin_dir) = &self.args.cni_bin_dir {
            install::install_plugin(&self.args.cni_binary, bin_dir)?;
        }
        if let Some(conf_dir) = &self.args.cni_conf_dir {
            install::write_conflist(conf_dir, &self.args.cni_socket)?;
        }
        Ok(())
    }
}

fn find_cgroup2(directory: &Path) -> Result<Option<PathBuf>> {
    let found = cgroup2::find(directory)?;
    match &found {
        Some(cgroup) => info!(cgroup = %cgroup.display(), "found the node's cgroup2"),
        None => warn!(
            directory = %directory.display(),
            "no cgroup2 is mounted there or below: processes reach Services by packet only"
        ),
    }
    Ok(found)
}
