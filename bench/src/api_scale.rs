//! What the operator takes in a large cluster: a real API server and etcd, with nodes, pods and policies as plain
//! objects, and agents that acknowledge everything at once.
//!
//! The operator is a process of its own, as it would be in a cluster. What it writes is counted by the API server.

mod agents;
mod api;
mod churn;
mod load;
mod operator;
mod reaction;
mod shape;
mod standing;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use kube::Client;

use crate::arguments::Options;
use crate::figure::{Figure, Goal, Unit};
use crate::plain_table::plain_table;
use crate::report::{Report, progress};
use crate::statistics::Spread;
use agents::Agents;
use api::Writes;
use churn::{Churn, Order, Seats};
use operator::{Memory, Operator};
use reaction::Reactions;
pub use shape::Shape;
use standing::Standing;
use store::Store;

/// For everything that takes longer in a larger cluster.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ApiScaleOptions {
    #[command(flatten)]
    pub shape: Shape,
    /// How many pods a second are replaced
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub churn: u32,
    /// For how long
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub churn_seconds: u64,
    /// Keep the loaded objects in this directory, and take them from there the next time: loading takes longest
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

impl ApiScaleOptions {
    fn shape(&self, options: &Options) -> Shape {
        if options.quick { Shape::SMALL } else { self.shape }
    }

    fn churn(&self, options: &Options) -> (u32, Duration) {
        let seconds = if options.quick { 3 } else { self.churn_seconds };
        (self.churn, Duration::from_secs(seconds))
    }
}

/// Everything that was measured.
#[derive(Debug)]
struct Findings {
    start: Start,
    /// Of a leader that finds everything as it should be.
    restart: Start,
    memory: Memory,
    reactions: Reactions,
    rollout: Churn,
    scattered: Churn,
}

#[derive(Debug)]
struct Start {
    /// From the process's start until every node has its NodeDataplane, or for a restart, until it leads.
    nodes: Duration,
    /// Until every policy is told to be programmed.
    programmed: Duration,
    writes: BTreeMap<String, u64>,
    cpu: Duration,
    memory: Memory,
}

pub(crate) fn run(wanted: &ApiScaleOptions, options: &Options, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let store = Store::open(wanted.store.as_deref(), &wanted.shape(options))?;
    let findings = runtime.block_on(measure(&store, wanted, options))?;
    report.add(
        "what the operator takes in a large cluster",
        &table(&findings),
        figures(&findings),
    )
}

async fn measure(store: &Store, wanted: &ApiScaleOptions, options: &Options) -> Result<Findings> {
    let shape = wanted.shape(options);
    let server = store.start(&shape).await?;
    let kubeconfig = server.kubeconfig();
    let client = api::client(kubeconfig).await?;
    let standing = Standing::watch(&client);
    let agents = Agents::start(&client, shape.nodes).await?;
    progress("api-scale: the operator starts, and finds nothing written");
    let (operator, start) = first_start(store, &client, kubeconfig, &shape, &agents, &standing).await?;
    progress("api-scale: policies are created");
    let rounds = options.rounds().min(5);
    let reactions = reaction::measure(&client, &shape, &agents, &standing, rounds).await?;
    let mut seats = Seats::new(&shape);
    let mut churns = Vec::new();
    for order in [Order::Rollout, Order::Scattered] {
        progress(&format!("api-scale: pods are replaced: {order:?}"));
        let pace = wanted.churn(options);
        churns.push(churn::measure(&client, &shape, &operator, &agents, &mut seats, order, pace).await?);
    }
    let memory = operator.memory()?;
    progress("api-scale: the operator is started anew");
    operator.stop()?;
    let (operator, restart) = second_start(store, &client, kubeconfig).await?;
    operator.stop()?;
    let [rollout, scattered] = churns
        .try_into()
        .map_err(|_| anyhow::anyhow!("two runs of churn"))?;
    Ok(Findings {
        start,
        restart,
        memory,
        reactions,
        rollout,
        scattered,
    })
}

async fn first_start(
    store: &Store,
    client: &Client,
    kubeconfig: &std::path::Path,
    shape: &Shape,
    agents: &Agents,
    standing: &Standing,
) -> Result<(Operator, Start)> {
    let before = Writes::counted(client).await?;
    let operator = Operator::start(kubeconfig, &store.log())?;
    let written = agents
        .until("every node has a NodeDataplane", PATIENCE, |nodes| {
            nodes.len() == shape.nodes
        })
        .await?;
    let last = written.values().map(|seen| seen.at).max();
    let nodes = last.unwrap_or(operator.started) - operator.started;
    standing
        .until("every policy is programmed", PATIENCE, |programmed| {
            programmed.len() == shape.policies
        })
        .await?;
    let start = Start {
        nodes,
        programmed: operator.started.elapsed(),
        writes: Writes::counted(client).await?.since(&before),
        cpu: operator.cpu_time()?,
        memory: operator.memory()?,
    };
    Ok((operator, start))
}

/// Until it holds the Lease and has been at rest for a while.
async fn second_start(
    store: &Store,
    client: &Client,
    kubeconfig: &std::path::Path,
) -> Result<(Operator, Start)> {
    const REST: Duration = Duration::from_secs(5);
    let before = Writes::counted(client).await?;
    let operator = Operator::start(kubeconfig, &store.log())?;
    let leads = operator.until_it_leads(PATIENCE).await?;
    let mut cpu = operator.cpu_time()?;
    let mut since = Instant::now();
    while since.elapsed() < REST {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let used = operator.cpu_time()?;
        if used > cpu + Duration::from_millis(50) {
            (cpu, since) = (used, Instant::now());
        }
    }
    let start = Start {
        nodes: leads,
        programmed: since - operator.started,
        writes: Writes::counted(client).await?.since(&before),
        cpu,
        memory: operator.memory()?,
    };
    Ok((operator, start))
}

fn figures(findings: &Findings) -> Vec<Figure> {
    let Findings {
        start,
        restart,
        memory,
        reactions,
        rollout,
        scattered,
    } = findings;
    let mut figures = vec![
        time("api_scale.start", start.nodes, Goal::AtMost(30_000.0)),
        time("api_scale.start_programmed", start.programmed, Goal::None),
        time("api_scale.start_cpu", start.cpu, Goal::None),
        bytes("api_scale.start_peak_rss", start.memory.peak, Goal::AtMost(500.0)),
        bytes("api_scale.rss", memory.resident, Goal::AtMost(500.0)),
        bytes("api_scale.peak_rss", memory.peak, Goal::AtMost(500.0)),
        time("api_scale.restart", restart.nodes, Goal::None),
        count(
            "api_scale.restart_writes",
            restart.writes.values().sum(),
            Goal::AtMost(0.0),
        ),
    ];
    let reactions = [
        ("api_scale.policy_to_last_node", &reactions.namespace_nodes),
        ("api_scale.policy_to_programmed", &reactions.namespace_programmed),
        ("api_scale.cluster_policy_to_last_node", &reactions.cluster_nodes),
    ];
    for (metric, times) in reactions {
        if let Some(spread) = Spread::of(times) {
            figures.push(Figure::new(metric, spread.median, Unit::Ms, Goal::None));
        }
    }
    for (name, churn) in [("rollout", rollout), ("scattered", scattered)] {
        let ratio = |what: &str, value: f64, goal: Goal| {
            Figure::new(format!("api_scale.{name}.{what}"), value, Unit::Ratio, goal)
        };
        figures.extend([
            ratio("writes_per_pod", churn.writes_per_pod(&[]), Goal::AtMost(0.05)),
            ratio(
                "book_writes_per_pod",
                churn.writes_per_pod(&["addressslices", "identityslices"]),
                Goal::AtMost(0.05),
            ),
            ratio(
                "node_writes_per_pod",
                churn.writes_per_pod(&["nodedataplanes"]),
                Goal::None,
            ),
            ratio("core", churn.core, Goal::None),
        ]);
    }
    figures
}

fn time(metric: &str, time: Duration, goal: Goal) -> Figure {
    Figure::new(metric, time.as_secs_f64() * 1e3, Unit::Ms, goal)
}

fn bytes(metric: &str, bytes: u64, goal: Goal) -> Figure {
    Figure::new(metric, bytes as f64 / 1e6, Unit::MB, goal)
}

fn count(metric: &str, count: u64, goal: Goal) -> Figure {
    Figure::new(metric, count as f64, Unit::Records, goal)
}

fn table(findings: &Findings) -> String {
    let writes = |writes: &BTreeMap<String, u64>| {
        let parts: Vec<String> = writes
            .iter()
            .map(|(resource, count)| format!("{resource} {count}"))
            .collect();
        parts.join(", ")
    };
    let start = |name: &str, start: &Start| {
        vec![
            name.to_owned(),
            format!("{:.1} s", start.programmed.as_secs_f64()),
            writes(&start.writes),
        ]
    };
    let churn = |name: &str, churn: &Churn| {
        let rate = churn.pods as f64 / churn.took.as_secs_f64();
        vec![
            format!("{name}: {} pods, {rate:.0} a second", churn.pods),
            format!("{:.1} s", churn.took.as_secs_f64()),
            writes(&churn.writes),
        ]
    };
    plain_table(
        &["", "time", "writes"],
        [
            start("start, until all is programmed", &findings.start),
            churn("rollout", &findings.rollout),
            churn("scattered", &findings.scattered),
            start("start anew, until at rest", &findings.restart),
        ],
    )
}
