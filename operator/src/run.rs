//! The operator's life: stand by, lead, stop.

use std::process::ExitCode;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::apply::Writer;
use crate::args::Arguments;
use crate::events::Events;
use crate::health::{Health, Phase, serve};
use crate::lead::Leader;
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::specs::Specs;
use crate::watch::watch_all;

/// The name of the Lease that the leader holds.
pub const LEASE: &str = "weir-operator";

/// Why [`operate`] came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// Another replica may lead by now. The process must end: it holds state of a leader.
    LostLease,
}

/// One replica of the operator.
#[derive(Clone)]
pub struct Replica {
    pub client: Client,
    /// With the Leases.
    pub namespace: String,
    /// No other replica has it.
    pub identity: String,
    pub health: Health,
    pub metrics: Metrics,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Runs until a signal.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Err(error) = start_log(arguments) {
        eprintln!("weir-operator: {error:#}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let end = runtime
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(start(arguments)));
    match end {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::LostLease) => {
            tracing::warn!("the Lease is lost; another replica may lead");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log).context("--log")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match arguments.log_json {
        true => log.json().init(),
        false => log.init(),
    }
    Ok(())
}

async fn start(arguments: &Arguments) -> anyhow::Result<End> {
    let replica = Replica {
        client: client(arguments).await?,
        namespace: arguments.namespace.clone(),
        identity: arguments.identity.clone(),
        health: Health::default(),
        metrics: Metrics::new().context("metrics")?,
    };
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let serving = serve(
        arguments.metrics_address,
        replica.health.clone(),
        replica.metrics.clone(),
    );
    tokio::select! {
        served = serving => {
            served.with_context(|| format!("--metrics-address {}", arguments.metrics_address))?;
            anyhow::bail!("the server of metrics and health has ended")
        }
        end = operate(replica, stop) => Ok(end),
    }
}

async fn client(arguments: &Arguments) -> anyhow::Result<Client> {
    let config = match &arguments.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("{}", file.display()))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(read, &options)
                .await
                .with_context(|| format!("{}", file.display()))?
        }
        None => Config::incluster().context("no --kubeconfig, and not in a cluster")?,
    };
    Client::try_from(config).context("no client")
}

/// Stands by until this replica holds the Lease, leads until `stop`, and gives the Lease back.
pub async fn operate(replica: Replica, stop: impl Future<Output = ()>) -> End {
    let election = Election::new(
        replica.client.clone(),
        &replica.namespace,
        LEASE,
        &replica.identity,
    );
    tokio::pin!(stop);
    tokio::select! {
        () = &mut stop => return End::Stopped,
        () = election.acquire(|| replica.health.set(Phase::Standby)) => {}
    }
    tracing::info!(identity = replica.identity, "leading");
    replica.health.set(Phase::Syncing);
    replica.metrics.leads(true);
    // Renewing must not wait for a plan to be made.
    let mut holding = tokio::spawn({
        let election = election.clone();
        async move { election.hold().await }
    });
    let mut leading = tokio::spawn(lead(replica.clone()));
    let end = tokio::select! {
        () = &mut stop => End::Stopped,
        _ = &mut holding => End::LostLease,
        _ = &mut leading => End::LostLease,
    };
    // First all writing ends, then another replica may begin.
    for task in [leading, holding] {
        task.abort();
        if !task.is_finished() {
            let _ = task.await;
        }
    }
    replica.metrics.leads(false);
    replica.health.set(Phase::Starting);
    if let Err(error) = election.release().await {
        tracing::info!(%error, "the Lease could not be given back; it runs out");
    }
    end
}

async fn lead(replica: Replica) {
    let specs = Specs::default();
    let (watches, updates) = watch_all(&replica.client, &replica.namespace, &replica.metrics, &specs);
    let writer = Writer::new(replica.client.clone(), replica.metrics.clone(), specs);
    let events = Events::start(replica.client, &replica.identity);
    let leader = Leader::new(writer, events, replica.metrics, replica.health);
    leader.lead(updates).await;
    drop(watches);
}
