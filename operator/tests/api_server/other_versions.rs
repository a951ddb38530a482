//! Objects of another version, with words that this one does not know.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{CLUSTER_POLICY, CONFIG, World};

pub(crate) async fn words_of_another_version_stop_nothing(world: &World) {
    world.loosen("dataplaneconfigs.dataplane.weir.dev").await;
    world
        .loosen("clusternetworkpolicies.policy.networking.k8s.io")
        .await;
    world.create_when_allowed(json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "newer"},
        "spec": {"precedence": 7, "network": {"mode": "Geneve", "mtu": 1300}},
    })).await;
    world
        .not_accepted(CONFIG, "newer", "Undecodable", "spec.network.mode: ")
        .await;
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
    world
        .not_accepted(
            CONFIG,
            "invalid",
            "InvalidCidr",
            "spec.network.nonMasqueradeCIDRs[0]: ",
        )
        .await;
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
    world
        .not_accepted(CLUSTER_POLICY, "newer", "Undecodable", "spec.egress[0].action: ")
        .await;
    // The watch goes on.
    let patch = json!({"spec": {"priority": 9}});
    let api = world.custom(CLUSTER_POLICY, "");
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
        .custom(CONFIG, "")
        .delete("newer", &DeleteParams::default())
        .await
        .unwrap();
}
