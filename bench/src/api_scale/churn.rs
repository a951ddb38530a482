//! Pods that end and are replaced by others of their kind, and what the operator writes for that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::agents::Agents;
use super::api::Writes;
use super::load::{end_pod, start_pod};
use super::operator::Operator;
use super::shape::{Pod, Shape};

/// Replacements under way at a time.
const CONCURRENCY: usize = 32;

/// After the last pod, until nothing is written any more: what a node has too much of may stay for ten seconds.
const SETTLING: Duration = Duration::from_secs(20);

/// Which pods are replaced, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Those of one namespace, then those of the next: a release.
    Rollout,
    /// As if a pod ended now and then anywhere.
    Scattered,
}

/// What a run has shown.
#[derive(Debug, Clone)]
pub(super) struct Churn {
    pub(super) pods: usize,
    pub(super) took: Duration,
    /// By resource, until nothing was written any more.
    pub(super) writes: BTreeMap<String, u64>,
    /// The share of one core that the operator used while pods came and went.
    pub(super) core: f64,
}

/// The seats' pods; `next` is the number of the next pod that is made.
#[derive(Debug)]
pub(super) struct Seats {
    pods: Vec<Pod>,
    next: usize,
    position: usize,
}

impl Seats {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            pods: (0..shape.pods).map(Pod::first).collect(),
            next: shape.pods,
            position: 0,
        }
    }

    /// The pod to end, and the one that comes in its place.
    fn replace(&mut self, order: Order) -> (Pod, Pod) {
        let count = self.pods.len();
        let seat = match order {
            Order::Rollout => self.position % count,
            // Coprime to the number of seats, or nearly: it takes long until a seat's turn comes again.
            Order::Scattered => self.position * 10_007 % count,
        };
        self.position += 1;
        let new = Pod {
            seat,
            number: self.next,
        };
        self.next += 1;
        (std::mem::replace(&mut self.pods[seat], new), new)
    }
}

impl Churn {
    pub(super) fn writes_per_pod(&self, resources: &[&str]) -> f64 {
        let writes: u64 = self
            .writes
            .iter()
            .filter(|(resource, _)| {
                resources.is_empty() || resources.iter().any(|wanted| resource.starts_with(wanted))
            })
            .map(|(_, count)| count)
            .sum();
        writes as f64 / self.pods as f64
    }
}

/// Replaces so many pods a second.
pub(super) async fn measure(
    client: &Client,
    shape: &Shape,
    operator: &Operator,
    agents: &Agents,
    seats: &mut Seats,
    order: Order,
    (rate, length): (u32, Duration),
) -> Result<Churn> {
    settle(client, agents).await?;
    let before = Writes::counted(client).await?;
    let (started, cpu) = (Instant::now(), operator.cpu_time()?);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut replacements = JoinSet::new();
    let mut pods = 0;
    while started.elapsed() < length {
        ticks.tick().await;
        while replacements.len() >= CONCURRENCY {
            finish(replacements.join_next().await)?;
        }
        let (old, new) = seats.replace(order);
        let (client, shape) = (client.clone(), *shape);
        replacements.spawn(async move {
            end_pod(&client, old).await?;
            start_pod(&client, &shape, new).await
        });
        pods += 1;
    }
    while let Some(done) = replacements.join_next().await {
        finish(Some(done))?;
    }
    let took = started.elapsed();
    let core = (operator.cpu_time()? - cpu).as_secs_f64() / took.as_secs_f64();
    settle(client, agents).await?;
    let after = Writes::counted(client).await?;
    Ok(Churn {
        pods,
        took,
        writes: after.since(&before),
        core,
    })
}

fn finish(done: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match done {
        Some(done) => done?,
        None => Ok(()),
    }
}

/// Waits until the operator writes nothing any more.
async fn settle(client: &Client, agents: &Agents) -> Result<()> {
    let mut known = (Writes::counted(client).await?, agents.nodes());
    let mut since = Instant::now();
    while since.elapsed() < SETTLING {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = (Writes::counted(client).await?, agents.nodes());
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    Ok(())
}
