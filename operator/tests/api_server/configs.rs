//! DataplaneConfigs: their settings on the nodes, and their statuses.

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{CONFIG, World, condition};

pub(crate) async fn configs_in_conflict_say_so(world: &World) {
    let config = |name: &str, mtu: i32| {
        json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig",
            "metadata": {"name": name}, "spec": {"network": {"mtu": mtu}},
        })
    };
    world.create(config("older", 1400)).await;
    // Times of creation are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.create(config("a-younger", 9000)).await;
    world
        .not_accepted(
            CONFIG,
            "a-younger",
            "Conflicted",
            "spec.network.mtu: DataplaneConfig older",
        )
        .await;
    world.status(CONFIG, "older", "Accepted", "True").await;
    let spec = world
        .until("n1 has the setting", async || {
            let spec = world.spec("n1").await?;
            (spec["settings"] == json!({"network": {"mtu": 1400}})).then_some(spec)
        })
        .await;
    assert_eq!(spec["settings"], json!({"network": {"mtu": 1400}}));
    world.acknowledge_all().await;
    let status = world.status(CONFIG, "older", "Programmed", "True").await;
    assert_eq!(status["nodes"], json!("2/2"));
    world.refuse("n2", "spec.network.mtu", "the link has 1280").await;
    let status = world.status(CONFIG, "older", "Degraded", "True").await;
    assert_eq!(
        condition(&status, "Degraded")["message"],
        json!("n2: spec.network.mtu: the link has 1280")
    );

    world.create(json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "nowhere"},
        "spec": {"nodeSelector": {"matchLabels": {"no": "such"}}, "network": {"mtu": 1500}},
    })).await;
    let status = world.status(CONFIG, "nowhere", "Programmed", "True").await;
    assert_eq!(
        condition(&status, "Programmed")["message"],
        json!("no node is selected")
    );
    assert_eq!(status["nodes"], json!("0/0"));
    assert_eq!(condition(&status, "Accepted")["status"], json!("True"));
}

/// Also the last one: the API server is asked to empty a map, which it makes null where it goes field by field.
pub(crate) async fn every_setting_reaches_the_nodes_and_goes_with_its_config(world: &World) {
    let settings = json!({
        "services": {"socketLoadBalancing": "Disabled"},
        "policy": {
            "establishedConnections": "Keep", "podStartTimeoutSeconds": 20, "onPodStartTimeout": "Fail",
        },
        "network": {
            "mode": "Native", "nativeRoutes": "Disabled", "uplinks": ["eth0"], "mtu": 1400,
            "masquerade": "Disabled", "nonMasqueradeCIDRs": ["10.0.0.0/8"],
        },
        "capacity": {"flows": 2048},
        "observability": {"recordsPerSecond": 100, "logLevel": "Debug"},
    });
    world
        .create(json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "all"},
            "spec": settings,
        }))
        .await;
    for node in ["n1", "n2"] {
        world
            .until("the node has every setting", async || {
                (world.spec(node).await?["settings"] == settings).then_some(())
            })
            .await;
    }
    world.acknowledge_all().await;
    world.status(CONFIG, "all", "Programmed", "True").await;
    world
        .custom(CONFIG, "")
        .delete("all", &DeleteParams::default())
        .await
        .unwrap();
    for node in ["n1", "n2"] {
        world
            .until("the node has no setting any more", async || {
                let spec = world.spec(node).await?;
                let settings = spec["settings"].as_object();
                settings.is_none_or(serde_json::Map::is_empty).then_some(())
            })
            .await;
    }
    world.acknowledge_all().await;
}
