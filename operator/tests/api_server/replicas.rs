//! Agents and replicas that come and go.

use std::time::Duration;

use serde_json::json;
use weir_operator::health::Phase;

use crate::world::{CLUSTER_POLICY, Running, World, condition};

pub(crate) async fn an_agent_that_is_cut_off_is_named(world: &World) {
    for node in ["n1", "n2"] {
        world.agent_lives(node, 3).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for node in ["n1", "n2"] {
        world.acknowledge(node).await;
    }
    let heartbeat = |nodes: &'static [&'static str]| async move {
        for node in nodes {
            world.agent_lives(node, 3).await;
        }
    };
    heartbeat(&["n1", "n2"]).await;
    world.acknowledge("n1").await;
    world.acknowledge("n2").await;
    // From here on only n1 renews its Lease.
    let started = std::time::Instant::now();
    let status = loop {
        heartbeat(&["n1"]).await;
        let status = world.status_now(CLUSTER_POLICY, "blue").await.unwrap();
        let programmed = condition(&status, "Programmed");
        if programmed["reason"] == json!("AgentCutOff") {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let programmed = condition(&status, "Programmed");
    assert_eq!(
        programmed["message"],
        json!("1/2 nodes; waiting for: n2 (cut off)")
    );
    assert_eq!(programmed["status"], json!("False"));
    for node in ["n1", "n2"] {
        world.agent_lives(node, 600).await;
        world.acknowledge(node).await;
    }
    world.status(CLUSTER_POLICY, "blue", "Programmed", "True").await;
}

pub(crate) async fn another_replica_takes_over(world: &World, first: Running) {
    let second = world.start_standby("second");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(second.health.phase(), Phase::Standby);
    let before = world.spec_generation("n1").await;
    let started = std::time::Instant::now();
    first.stop().await;
    world
        .until("the second leads", async || {
            (second.health.phase() == Phase::Leading).then_some(())
        })
        .await;
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "taking over took {:?}",
        started.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        world.spec_generation("n1").await,
        before,
        "a new leader writes nothing that is there"
    );
    assert_eq!(second.metrics.writes("NodeDataplane"), 0);
    assert_eq!(
        second.metrics.writes("IdentitySlice") + second.metrics.writes("AddressSlice"),
        0
    );
    assert_eq!(
        second.metrics.writes("PolicyStatus") + second.metrics.writes("PolicyStatus/status"),
        0
    );
    world
        .network_policy(
            "shop",
            "late",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        )
        .await;
    world
        .until("the second works", async || {
            let spec = world.spec("n1").await?;
            let policies = spec["policies"].as_array()?;
            policies
                .iter()
                .any(|policy| policy["reference"]["name"] == json!("late"))
                .then_some(())
        })
        .await;
    second.stop().await;
}
