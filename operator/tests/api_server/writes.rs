//! What is written, how often, and in which order.

use std::time::Duration;

use serde_json::json;
use weir_operator::metrics::Metrics;

use crate::world::{ADDRESS_SLICE, IDENTITY_SLICE, World};

pub(crate) async fn nothing_is_written_twice(world: &World, metrics: &Metrics) {
    let kinds = [
        "NodeDataplane",
        "IdentitySlice",
        "AddressSlice",
        "PolicyStatus",
        "PolicyStatus/status",
        "ClusterNetworkPolicy/status",
    ];
    // What was superfluous goes within ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let count = || kinds.map(|kind| metrics.writes(kind));
    let before = count();
    // None of this changes what is wanted.
    world.pod_annotation("shop", "web-1", "note", "1").await;
    world.agent_lives("n1", 40).await;
    world.network_policy_label("shop", "db", "note", "1").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(count(), before);

    // A burst of pods of a known identity makes few writes, and none to a node.
    for index in 2..32 {
        let address = format!("10.0.0.{index}");
        world
            .pod(
                "shop",
                &format!("web-{index}"),
                "n1",
                &address,
                json!({"app": "web"}),
            )
            .await;
    }
    world
        .until("the book has every pod", async || {
            let slice = world.get_custom(ADDRESS_SLICE, "", "pods.shop").await?;
            (slice.data["spec"]["pods"].as_array()?.len() == 32).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = count();
    assert_eq!(after[0], before[0], "NodeDataplanes");
    assert!(
        after[2] - before[2] <= 10,
        "{} writes of addresses for 30 pods",
        after[2] - before[2]
    );
}

/// The identities that a new policy needs are in the book before a node is asked to rely on them, and what a node still
/// relies on stays.
pub(crate) async fn a_new_label_key_comes_in_order(world: &World) {
    let before = world.spec("n2").await.unwrap();
    let number = before["covers"][0].as_u64().unwrap();
    world
        .network_policy(
            "shop",
            "tiers",
            json!({
                "podSelector": {"matchLabels": {"tier": "data"}}, "policyTypes": ["Egress"],
            }),
        )
        .await;
    let spec = world
        .until("tier matters", async || {
            let spec = world.spec("n2").await?;
            (spec["relevance"]["podLabels"] == json!(["app", "tier"])).then_some(spec)
        })
        .await;
    for kind in [IDENTITY_SLICE, ADDRESS_SLICE] {
        let head = world.get_custom(kind, "", "head").await.unwrap();
        assert!(head.data["spec"]["revision"].as_i64() >= spec["addressBook"].as_i64());
    }
    world
        .set_pod_labels("shop", "db-1", json!({"app": "db", "tier": "data"}))
        .await;
    let spec = world
        .until("the pod has another identity", async || {
            let spec = world.spec("n2").await?;
            (spec["covers"] != json!([number])).then_some(spec)
        })
        .await;
    let policies: Vec<&str> = spec["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| policy["reference"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(policies, ["db", "tiers"]);

    // The key goes only after the nodes have said that they no longer need it.
    world.acknowledge("n1").await;
    world.acknowledge("n2").await;
    world.delete_network_policy("shop", "tiers").await;
    world
        .until("n2 has lost the policy", async || {
            let spec = world.spec("n2").await?;
            (spec["policies"].as_array()?.len() == 1).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spec = world.spec("n2").await.unwrap();
    assert_eq!(
        spec["relevance"]["podLabels"],
        json!(["app", "tier"]),
        "n2 has not acknowledged"
    );
    world.acknowledge("n2").await;
    world
        .until("tier does not matter any more", async || {
            let spec = world.spec("n2").await?;
            (spec["relevance"]["podLabels"] == json!(["app"])).then_some(())
        })
        .await;
    world.acknowledge("n1").await;
    world.acknowledge("n2").await;
    world.policy_status("shop", "db", "Programmed", "True").await;
}
