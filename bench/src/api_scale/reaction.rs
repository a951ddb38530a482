//! From a policy's creation to the last NodeDataplane, and to what people read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use serde_json::json;
use weir_api::ClusterNetworkPolicy;

use super::agents::{Agents, Nodes};
use super::api;
use super::shape::{Shape, namespace_name, node_name};
use super::standing::Standing;

const PATIENCE: Duration = Duration::from_secs(120);

/// Between a change and the next one, so that each finds an operator at rest.
const REST: Duration = Duration::from_secs(3);

/// Times in milliseconds, one a round.
#[derive(Debug, Default)]
pub(super) struct Reactions {
    /// A policy of one namespace: to the last NodeDataplane, and to `Programmed=True`.
    pub(super) namespace_nodes: Vec<f64>,
    pub(super) namespace_programmed: Vec<f64>,
    /// A policy of every pod: to the last NodeDataplane.
    pub(super) cluster_nodes: Vec<f64>,
}

pub(super) async fn measure(
    client: &Client,
    shape: &Shape,
    agents: &Agents,
    standing: &Standing,
    rounds: usize,
) -> Result<Reactions> {
    let mut reactions = Reactions::default();
    let few = shape.nodes_of_first_namespace();
    let all: BTreeSet<String> = (0..shape.nodes.min(shape.pods)).map(node_name).collect();
    for round in 0..rounds {
        let name = format!("probe-{round}");
        let policies = api::any_in::<NetworkPolicy>(client, &namespace_name(0));
        let policy = json!({
            "metadata": {"name": name},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]},
        });
        let before = agents.nodes();
        let created = Instant::now();
        api::create(&policies, policy).await?;
        let last = last_written(agents, &before, &few).await?;
        reactions.namespace_nodes.push(milliseconds(last - created));
        let full_name = format!("{}/{name}", namespace_name(0));
        standing
            .until("the policy is programmed", PATIENCE, |programmed| {
                programmed.contains(&full_name)
            })
            .await?;
        reactions
            .namespace_programmed
            .push(milliseconds(created.elapsed()));
        remove(&policies, &name, agents, &few).await?;
    }
    for round in 0..rounds.div_ceil(2) {
        let name = format!("probe-{round}");
        let policies = api::any::<ClusterNetworkPolicy>(client);
        let policy = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name},
            "spec": {
                "tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
                "egress": [{"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]}],
            },
        });
        let before = agents.nodes();
        let created = Instant::now();
        api::create(&policies, policy).await?;
        let last = last_written(agents, &before, &all).await?;
        reactions.cluster_nodes.push(milliseconds(last - created));
        remove(&policies, &name, agents, &all).await?;
    }
    Ok(reactions)
}

/// When the last of these nodes got another NodeDataplane.
async fn last_written(agents: &Agents, before: &Nodes, concerned: &BTreeSet<String>) -> Result<Instant> {
    let is_new = |nodes: &Nodes, name: &String| {
        let generation = |nodes: &Nodes| nodes.get(name).map(|seen| seen.generation);
        generation(nodes) > generation(before)
    };
    let nodes = agents
        .until(
            "every node concerned has a new NodeDataplane",
            PATIENCE,
            |nodes| concerned.iter().all(|name| is_new(nodes, name)),
        )
        .await?;
    let times = concerned
        .iter()
        .filter_map(|name| nodes.get(name).map(|seen| seen.at));
    times.max().context("no node is concerned")
}

async fn remove(
    api: &kube::Api<DynamicObject>,
    name: &str,
    agents: &Agents,
    concerned: &BTreeSet<String>,
) -> Result<()> {
    let before = agents.nodes();
    api.delete(name, &DeleteParams::default()).await?;
    last_written(agents, &before, concerned).await?;
    tokio::time::sleep(REST).await;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
