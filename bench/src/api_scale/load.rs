//! Fills an API server, many objects at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod as CorePod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use weir_api::cluster_network_policy::Channel;
use weir_api::{
    address_slice, cluster_network_policy, dataplane_config, flow_log_policy, identity_slice, node_dataplane,
    policy_status,
};

use super::agents::lease;
use super::api::{self, SYSTEM};
use super::shape::{Pod, Shape, node_name};
use crate::report::progress;

/// Requests under way at a time.
const CONCURRENCY: usize = 24;

/// How often whoever waits hears of it.
const NEWS: Duration = Duration::from_secs(10);

/// Everything but what the operator writes.
pub(super) async fn load(client: &Client, shape: &Shape) -> Result<()> {
    definitions(client).await?;
    api::create(&api::namespaces(client), json!({"metadata": {"name": SYSTEM}})).await?;
    let namespaces = api::namespaces(client);
    each("namespaces", shape.namespaces(), async |index| {
        api::create(&namespaces, shape.namespace(index)).await
    })
    .await?;
    let (nodes, leases) = (api::nodes(client), api::any_in::<Lease>(client, SYSTEM));
    each("nodes", shape.nodes, async |index| {
        api::create(&nodes, shape.node(index)).await?;
        api::create(&leases, lease(&node_name(index))).await
    })
    .await?;
    each("pods", shape.pods, async |seat| {
        start_pod(client, shape, Pod::first(seat)).await
    })
    .await?;
    each("policies", shape.policies, async |index| {
        let (namespace, policy) = shape.policy(index);
        api::create(&api::any_in::<NetworkPolicy>(client, &namespace), policy).await
    })
    .await
}

/// As a scheduler, a kubelet and a network plugin do it together.
pub(super) async fn start_pod(client: &Client, shape: &Shape, pod: Pod) -> Result<()> {
    let pods = api::any_in::<CorePod>(client, &Shape::namespace_of(pod.seat));
    api::create(&pods, shape.pod(pod)).await?;
    let address = pod.address();
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    api::set_status(&pods, &pod.name(), &status).await
}

pub(super) async fn end_pod(client: &Client, pod: Pod) -> Result<()> {
    let pods = api::any_in::<CorePod>(client, &Shape::namespace_of(pod.seat));
    pods.delete(&pod.name(), &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}

async fn definitions(client: &Client) -> Result<()> {
    let definitions = [
        address_slice::custom_resource_definition()?,
        cluster_network_policy::custom_resource_definition(Channel::Standard)?,
        dataplane_config::custom_resource_definition()?,
        flow_log_policy::custom_resource_definition()?,
        identity_slice::custom_resource_definition()?,
        node_dataplane::custom_resource_definition()?,
        policy_status::custom_resource_definition()?,
    ];
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in &definitions {
        api.create(&PostParams::default(), definition).await?;
    }
    for definition in &definitions {
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        let established = kube::runtime::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(api.clone(), name, established);
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .with_context(|| format!("{name} is not established"))??;
    }
    Ok(())
}

/// Does something for each number below `count`, and says how far it is.
async fn each(what: &str, count: usize, work: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let started = Instant::now();
    let done = AtomicUsize::new(0);
    let news = async {
        loop {
            tokio::time::sleep(NEWS).await;
            progress(&format!("{what}: {} of {count}", done.load(Ordering::Relaxed)));
        }
    };
    let all = stream::iter(0..count)
        .map(|index| {
            let (work, done) = (&work, &done);
            async move {
                work(index).await?;
                done.fetch_add(1, Ordering::Relaxed);
                Ok::<_, anyhow::Error>(())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>();
    tokio::select! {
        made = all => made.with_context(|| format!("making {what}"))?,
        () = news => {}
    }
    progress(&format!(
        "{what}: {count} in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}
