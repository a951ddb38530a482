//! NetworkPolicies: from the object to the nodes, and back to its status.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use serde_json::{Value, json};

use crate::world::{ADDRESS_SLICE, IDENTITY_SLICE, POLICY_STATUS, World, condition};

pub(crate) async fn a_policy_reaches_the_nodes(world: &World) {
    for node in ["n1", "n2"] {
        world.node(node).await;
        world.agent_lives(node, 40).await;
    }
    world.namespace("shop", json!({"team": "blue"})).await;
    world
        .pod("shop", "web-1", "n1", "10.0.0.1", json!({"app": "web"}))
        .await;
    world
        .pod("shop", "db-1", "n2", "10.0.1.1", json!({"app": "db"}))
        .await;
    world
        .network_policy(
            "shop",
            "db",
            json!({
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
            }),
        )
        .await;
    let has = |spec: &Value, count: usize| {
        spec["policies"]
            .as_array()
            .is_some_and(|policies| policies.len() == count)
            && spec["covers"].as_array().is_some_and(|covers| covers.len() == 1)
    };
    let spec = world
        .until("n2 has the policy", async || {
            let spec = world.spec("n2").await?;
            has(&spec, 1).then_some(spec)
        })
        .await;
    assert_eq!(spec["relevance"]["podLabels"], json!(["app"]));
    assert_eq!(spec["policies"][0]["reference"]["name"], json!("db"));
    let other = world.spec("n1").await.unwrap();
    assert!(has(&other, 0), "the policy selects no pod on n1: {other}");

    let heads = [
        world.get_custom(IDENTITY_SLICE, "", "head").await.unwrap(),
        world.get_custom(ADDRESS_SLICE, "", "head").await.unwrap(),
    ];
    for head in heads {
        assert!(head.data["spec"]["revision"].as_i64() >= spec["addressBook"].as_i64());
    }
    let slice = world.get_custom(ADDRESS_SLICE, "", "pods.shop").await.unwrap();
    let names: Vec<&str> = slice.data["spec"]["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["db-1", "web-1"]);
    let nodes = world.get_custom(ADDRESS_SLICE, "", "nodes").await.unwrap();
    assert_eq!(nodes.data["spec"]["nodes"][0]["podCIDRs"], json!(["10.0.0.0/24"]));

    let status = world.policy_status("shop", "db", "Programmed", "False").await;
    assert_eq!(status["nodes"], json!("0/1"));
    assert_eq!(
        condition(&status, "Programmed")["message"],
        json!("0/1 nodes; waiting for: n2")
    );
    assert_eq!(condition(&status, "Accepted")["status"], json!("True"));
}

pub(crate) async fn acknowledged_means_programmed(world: &World) {
    world.acknowledge("n1").await;
    world.acknowledge("n2").await;
    let status = world.policy_status("shop", "db", "Programmed", "True").await;
    assert_eq!(status["nodes"], json!("1/1"));
    assert_eq!(condition(&status, "Programmed")["observedGeneration"], json!(1));
    let owner = world.get_custom(POLICY_STATUS, "shop", "db").await.unwrap();
    let owner = &owner.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("NetworkPolicy", "db")
    );

    // A change of the spec makes it pending until the node has that.
    world
        .network_policy(
            "shop",
            "db",
            json!({
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}],
            }),
        )
        .await;
    let status = world.policy_status("shop", "db", "Programmed", "False").await;
    assert_eq!(condition(&status, "Programmed")["observedGeneration"], json!(2));
    world.acknowledge("n2").await;
    let status = world.policy_status("shop", "db", "Programmed", "True").await;
    assert_eq!(condition(&status, "Programmed")["observedGeneration"], json!(2));
}

/// Of all that a person could have read at any moment nothing is ahead of the nodes: a spec of which there is no plan
/// yet is not told to be in force because the nodes have the one before.
pub(crate) async fn programmed_is_never_told_of_a_spec_that_no_node_has(world: &World) {
    let told = world.watch_programmed("shop", "db");
    let policies = Api::<NetworkPolicy>::namespaced(world.client.clone(), "shop");
    let mut acknowledged = BTreeSet::from([2]);
    for port in 8000..8008 {
        world
            .network_policy(
                "shop",
                "db",
                json!({
                    "podSelector": {"matchLabels": {"app": "db"}},
                    "ingress": [{
                        "from": [{"podSelector": {"matchLabels": {"app": "api"}}}], "ports": [{"port": port}],
                    }],
                }),
            )
            .await;
        let generation = policies.get("db").await.unwrap().metadata.generation.unwrap();
        world.policy_status("shop", "db", "Programmed", "False").await;
        let in_force = told.generations_in_force();
        assert!(
            in_force.is_subset(&acknowledged),
            "{in_force:?} were told to be in force, of which the nodes have {acknowledged:?}"
        );
        world.acknowledge("n2").await;
        acknowledged.insert(generation);
        world.policy_status("shop", "db", "Programmed", "True").await;
    }
    world
        .until("the watch has told of all that", async || {
            (told.generations_in_force() == acknowledged).then_some(())
        })
        .await;
}

/// Its status observes its own generation, which `kubectl wait` compares with the status object's.
pub(crate) async fn a_policy_that_takes_a_name_has_a_status_of_its_own(world: &World) {
    world.delete_network_policy("shop", "db").await;
    world
        .network_policy(
            "shop",
            "db",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
        )
        .await;
    world.policy_status("shop", "db", "Programmed", "False").await;
    world.acknowledge("n2").await;
    let status = world.policy_status("shop", "db", "Programmed", "True").await;
    assert_eq!(condition(&status, "Programmed")["observedGeneration"], json!(1));
    let object = world.get_custom(POLICY_STATUS, "shop", "db").await.unwrap();
    assert_eq!(object.metadata.generation, Some(1));
}
