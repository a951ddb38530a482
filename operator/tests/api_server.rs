//! The operator against a real API server: etcd and kube-apiserver, objects as people write them, agents played by the
//! test.

#![expect(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use world::{World, condition};

#[test]
fn the_operator_against_a_real_api_server() {
    tracing_subscriber::fmt()
        .with_env_filter("weir_operator=debug,kube_runtime=warn")
        .with_test_writer()
        .init();
    let server = weir_e2e::api_server::ApiServer::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(server.kubeconfig()).await;
        // The first replica leads from here on.
        let first = world.start("first").await;
        a_policy_reaches_the_nodes(&world).await;
        acknowledged_means_programmed(&world).await;
        nothing_is_written_twice(&world, &first.metrics).await;
        a_new_label_key_comes_in_order(&world).await;
        other_kinds_tell_their_status(&world).await;
        configs_in_conflict_say_so(&world).await;
        words_of_another_version_stop_nothing(&world).await;
        an_agent_that_is_cut_off_is_named(&world).await;
        another_replica_takes_over(&world, first).await;
    });
}

async fn a_policy_reaches_the_nodes(world: &World) {
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
        world
            .get_custom("IdentitySlice", "identityslices", "", "head")
            .await
            .unwrap(),
        world
            .get_custom("AddressSlice", "addressslices", "", "head")
            .await
            .unwrap(),
    ];
    for head in heads {
        assert!(head.data["spec"]["revision"].as_i64() >= spec["addressBook"].as_i64());
    }
    let slice = world
        .get_custom("AddressSlice", "addressslices", "", "pods.shop")
        .await
        .unwrap();
    let names: Vec<&str> = slice.data["spec"]["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["db-1", "web-1"]);
    let nodes = world
        .get_custom("AddressSlice", "addressslices", "", "nodes")
        .await
        .unwrap();
    assert_eq!(nodes.data["spec"]["nodes"][0]["podCIDRs"], json!(["10.0.0.0/24"]));

    let status = world.policy_status("shop", "db", "Programmed", "False").await;
    assert_eq!(status["nodes"], json!("0/1"));
    assert_eq!(
        condition(&status, "Programmed")["message"],
        json!("0/1 nodes; waiting for: n2")
    );
    assert_eq!(condition(&status, "Accepted")["status"], json!("True"));
}

async fn acknowledged_means_programmed(world: &World) {
    world.acknowledge("n1").await;
    world.acknowledge("n2").await;
    let status = world.policy_status("shop", "db", "Programmed", "True").await;
    assert_eq!(status["nodes"], json!("1/1"));
    assert_eq!(condition(&status, "Programmed")["observedGeneration"], json!(1));
    let owner = world
        .get_custom("PolicyStatus", "policystatuses", "shop", "db")
        .await
        .unwrap();
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

    // Another policy takes the name: its status observes its own generation, which `kubectl wait` compares with the
    // status object's.
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
    let object = world
        .get_custom("PolicyStatus", "policystatuses", "shop", "db")
        .await
        .unwrap();
    assert_eq!(object.metadata.generation, Some(1));
}

async fn nothing_is_written_twice(world: &World, metrics: &weir_operator::metrics::Metrics) {
    let kinds = [
        "NodeDataplane",
        "IdentitySlice",
        "AddressSlice",
        "PolicyStatus",
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
            let slice = world
                .get_custom("AddressSlice", "addressslices", "", "pods.shop")
                .await?;
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
async fn a_new_label_key_comes_in_order(world: &World) {
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
    for (kind, plural) in [
        ("IdentitySlice", "identityslices"),
        ("AddressSlice", "addressslices"),
    ] {
        let head = world.get_custom(kind, plural, "", "head").await.unwrap();
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

async fn other_kinds_tell_their_status(world: &World) {
    world
        .create(json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "blue"},
            "spec": {
                "tier": "Admin", "priority": 5, "subject": {"namespaces": {"matchLabels": {"team": "blue"}}},
                "egress": [{"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]}],
            },
        }))
        .await;
    world
        .create(json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "FlowLogPolicy",
            "metadata": {"name": "all"},
            "spec": {"subject": {"namespaceSelector": {"matchLabels": {"logged": "yes"}}}},
        }))
        .await;
    let policy = world
        .status(
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "blue",
            "Programmed",
            "False",
        )
        .await;
    assert_eq!(
        condition(&policy, "Programmed")["message"],
        json!("0/2 nodes; waiting for: n1, n2")
    );
    for node in ["n1", "n2"] {
        world.acknowledge(node).await;
    }
    let policy = world
        .status(
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "blue",
            "Programmed",
            "True",
        )
        .await;
    assert_eq!(condition(&policy, "Programmed")["message"], json!("2/2 nodes"));
    world
        .status("FlowLogPolicy", "flowlogpolicies", "all", "Programmed", "True")
        .await;
    world
        .until("an event tells that it is programmed", async || {
            world.event("blue", "Programmed").await
        })
        .await;
}

async fn configs_in_conflict_say_so(world: &World) {
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
    let status = world
        .status(
            "DataplaneConfig",
            "dataplaneconfigs",
            "a-younger",
            "Accepted",
            "False",
        )
        .await;
    let accepted = condition(&status, "Accepted");
    assert_eq!(accepted["reason"], json!("Conflicted"));
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("spec.network.mtu: DataplaneConfig older"),
        "{accepted}"
    );
    world
        .status("DataplaneConfig", "dataplaneconfigs", "older", "Accepted", "True")
        .await;
    let spec = world
        .until("n1 has the setting", async || {
            let spec = world.spec("n1").await?;
            (spec["settings"] == json!({"network": {"mtu": 1400}})).then_some(spec)
        })
        .await;
    assert_eq!(spec["settings"], json!({"network": {"mtu": 1400}}));
    for node in ["n1", "n2"] {
        world.acknowledge(node).await;
    }
    let status = world
        .status(
            "DataplaneConfig",
            "dataplaneconfigs",
            "older",
            "Programmed",
            "True",
        )
        .await;
    assert_eq!(status["nodes"], json!("2/2"));
    world.refuse("n2", "spec.network.mtu", "the link has 1280").await;
    let status = world
        .status("DataplaneConfig", "dataplaneconfigs", "older", "Degraded", "True")
        .await;
    assert_eq!(
        condition(&status, "Degraded")["message"],
        json!("n2: spec.network.mtu: the link has 1280")
    );

    world.create(json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "nowhere"},
        "spec": {"nodeSelector": {"matchLabels": {"no": "such"}}, "network": {"mtu": 1500}},
    })).await;
    let status = world
        .status(
            "DataplaneConfig",
            "dataplaneconfigs",
            "nowhere",
            "Programmed",
            "True",
        )
        .await;
    assert_eq!(
        condition(&status, "Programmed")["message"],
        json!("no node is selected")
    );
    assert_eq!(status["nodes"], json!("0/0"));
    assert_eq!(condition(&status, "Accepted")["status"], json!("True"));
}

async fn words_of_another_version_stop_nothing(world: &World) {
    world.loosen("dataplaneconfigs.dataplane.weir.dev").await;
    world
        .loosen("clusternetworkpolicies.policy.networking.k8s.io")
        .await;
    world.create_when_allowed(json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "newer"},
        "spec": {"precedence": 7, "network": {"mode": "Geneve", "mtu": 1300}},
    })).await;
    let status = world
        .status(
            "DataplaneConfig",
            "dataplaneconfigs",
            "newer",
            "Accepted",
            "False",
        )
        .await;
    let accepted = condition(&status, "Accepted");
    assert_eq!(accepted["reason"], json!("Undecodable"));
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .starts_with("spec.network.mode: "),
        "{accepted}"
    );
    world
        .until("what is understood of it counts", async || {
            let spec = world.spec("n1").await?;
            (spec["settings"]["network"] == json!({"mtu": 1300})).then_some(())
        })
        .await;
    world.create(json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "invalid"},
        "spec": {"network": {"nonMasqueradeCIDRs": ["ten/8"]}},
    })).await;
    let status = world
        .status(
            "DataplaneConfig",
            "dataplaneconfigs",
            "invalid",
            "Accepted",
            "False",
        )
        .await;
    assert_eq!(condition(&status, "Accepted")["reason"], json!("InvalidCidr"));
    world
        .create_when_allowed(json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "newer"},
            "spec": {
                "tier": "Admin", "priority": 6, "subject": {"namespaces": {}},
                "egress": [{"action": "Log", "to": [{"networks": ["198.51.100.0/24"]}]}],
            },
        }))
        .await;
    let status = world
        .status(
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "newer",
            "Accepted",
            "False",
        )
        .await;
    let accepted = condition(&status, "Accepted");
    assert_eq!(accepted["reason"], json!("Undecodable"));
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .starts_with("spec.egress[0].action: "),
        "{accepted}"
    );
    // The watch goes on.
    let patch = json!({"spec": {"priority": 9}});
    let api = world.custom("ClusterNetworkPolicy", "clusternetworkpolicies", "");
    api.patch("blue", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    world
        .until("a later change is seen", async || {
            let spec = world.spec("n2").await?;
            let policies = spec["policies"].as_array()?;
            policies
                .iter()
                .any(|policy| policy["priority"] == json!(9))
                .then_some(())
        })
        .await;
    api.delete("newer", &DeleteParams::default()).await.unwrap();
    world
        .custom("DataplaneConfig", "dataplaneconfigs", "")
        .delete("newer", &DeleteParams::default())
        .await
        .unwrap();
}

async fn an_agent_that_is_cut_off_is_named(world: &World) {
    for node in ["n1", "n2"] {
        world.agent_lives(node, 3).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for node in ["n1", "n2"] {
        world.acknowledge(node).await;
    }
    let kind = ("ClusterNetworkPolicy", "clusternetworkpolicies");
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
        let status = world.status_now(kind.0, kind.1, "blue").await.unwrap();
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
    world.status(kind.0, kind.1, "blue", "Programmed", "True").await;
}

async fn another_replica_takes_over(world: &World, first: world::Running) {
    let second = world.start_standby("second");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(second.health.phase(), weir_operator::health::Phase::Standby);
    let before = world.spec_generation("n1").await;
    let started = std::time::Instant::now();
    first.stop().await;
    world
        .until("the second leads", async || {
            (second.health.phase() == weir_operator::health::Phase::Leading).then_some(())
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
    assert_eq!(second.metrics.writes("PolicyStatus"), 0);
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
