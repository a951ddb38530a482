//! The agents of all nodes: they acknowledge what they are given at once, and renew their Leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use weir_api::NodeDataplane;

use super::api::{self, SYSTEM};
use super::shape::node_name;

/// As real agents do.
const RENEW_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;

/// Requests under way at a time: a thousand agents do not wait for one another.
const CONCURRENCY: usize = 16;

/// A NodeDataplane as the agents last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) generation: i64,
    pub(super) at: Instant,
}

pub(super) type Nodes = BTreeMap<String, Seen>;

/// They end when dropped.
#[derive(Debug)]
pub(super) struct Agents {
    nodes: watch::Receiver<Arc<Nodes>>,
    _tasks: JoinSet<()>,
}

impl Agents {
    /// Returns when every Lease has been renewed.
    pub(super) async fn start(client: &Client, count: usize) -> Result<Self> {
        renew_all(client, count).await?;
        let (sender, nodes) = watch::channel(Arc::new(Nodes::new()));
        let (acknowledge, acknowledged) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(look(client.clone(), sender, acknowledge));
        tasks.spawn(acknowledge_all(client.clone(), acknowledged));
        tasks.spawn(keep_renewing(client.clone(), count));
        Ok(Self { nodes, _tasks: tasks })
    }

    pub(super) fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes.borrow())
    }

    /// Waits until what the agents have seen is as it should be.
    pub(super) async fn until(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&Nodes) -> bool,
    ) -> Result<Arc<Nodes>> {
        let mut nodes = self.nodes.clone();
        let seen = tokio::time::timeout(patience, nodes.wait_for(|nodes| holds(nodes))).await;
        match seen {
            Ok(nodes) => Ok(Arc::clone(&*nodes?)),
            Err(_) => bail!("not within {} s: {what}", patience.as_secs()),
        }
    }
}

async fn look(
    client: Client,
    nodes: watch::Sender<Arc<Nodes>>,
    acknowledge: mpsc::UnboundedSender<(String, i64)>,
) {
    let api = Api::<PartialObjectMeta<NodeDataplane>>::all(client);
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    loop {
        let object = match events.try_next().await {
            Ok(Some(object)) => object,
            Ok(None) => return,
            // It is started again.
            Err(_) => continue,
        };
        let seen = Seen {
            generation: object.metadata.generation.unwrap_or_default(),
            at: Instant::now(),
        };
        let name = object.name_any();
        let is_known = |known: &Seen| known.generation == seen.generation;
        if nodes.borrow().get(&name).is_some_and(is_known) {
            continue;
        }
        // Nobody listens any more when everything comes to its end.
        let _ = acknowledge.send((name.clone(), seen.generation));
        nodes.send_modify(|nodes| {
            Arc::make_mut(nodes).insert(name, seen);
        });
    }
}

async fn acknowledge_all(client: Client, waiting: mpsc::UnboundedReceiver<(String, i64)>) {
    let api = api::any::<NodeDataplane>(&client);
    let waiting = stream::unfold(waiting, async |mut waiting| {
        let next = waiting.recv().await?;
        Some((next, waiting))
    });
    waiting
        .for_each_concurrent(CONCURRENCY, async |(name, generation)| {
            let status = status(generation);
            if let Err(error) = api::set_status(&api, &name, &status).await {
                eprintln!("   {name}: {error:#}");
            }
        })
        .await;
}

fn status(generation: i64) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |name: &str, status: &str, reason: &str| {
        json!({
            "type": name, "status": status, "reason": reason, "message": "", "observedGeneration": generation,
            "lastTransitionTime": now,
        })
    };
    json!({
        "programmedGeneration": generation,
        "conditions": [
            condition("Programmed", "True", "Programmed"), condition("Degraded", "False", "AsExpected"),
        ],
        "agent": {"version": "0.1.0", "kernel": "6.18.0"},
        "policies": 60, "pods": 30,
    })
}

/// The Lease of a node's agent, renewed at this moment.
pub(super) fn lease(node: &str) -> Value {
    json!({
        "metadata": {"name": format!("weir-agent-{node}")},
        "spec": {
            "holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": format!("{:.6}", jiff::Timestamp::now()),
        },
    })
}

async fn renew(client: &Client, index: usize) -> Result<()> {
    let lease = lease(&node_name(index));
    let name = lease["metadata"]["name"].as_str().unwrap_or_default();
    let patch = json!({ "spec": lease["spec"] });
    api::any_in::<Lease>(client, SYSTEM)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

async fn renew_all(client: &Client, count: usize) -> Result<()> {
    stream::iter(0..count)
        .map(|index| renew(client, index))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Spread over the time that a round may take.
async fn keep_renewing(client: Client, count: usize) {
    let pause = RENEW_EVERY / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let mut ticks = tokio::time::interval(pause);
    let mut renewals = JoinSet::new();
    for index in (0..count).cycle() {
        ticks.tick().await;
        while renewals.len() >= CONCURRENCY {
            renewals.join_next().await;
        }
        while renewals.try_join_next().is_some() {}
        let client = client.clone();
        renewals.spawn(async move {
            if let Err(error) = renew(&client, index).await {
                eprintln!("   the Lease of {}: {error:#}", node_name(index));
            }
        });
    }
}
