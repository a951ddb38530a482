//! The statuses of the kinds beside NetworkPolicy.

use serde_json::json;

use crate::world::{CLUSTER_POLICY, FLOW_LOG_POLICY, World, condition};

pub(crate) async fn other_kinds_tell_their_status(world: &World) {
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
    let policy = world.status(CLUSTER_POLICY, "blue", "Programmed", "False").await;
    assert_eq!(
        condition(&policy, "Programmed")["message"],
        json!("0/2 nodes; waiting for: n1, n2")
    );
    world.acknowledge_all().await;
    let policy = world.status(CLUSTER_POLICY, "blue", "Programmed", "True").await;
    assert_eq!(condition(&policy, "Programmed")["message"], json!("2/2 nodes"));
    world.status(FLOW_LOG_POLICY, "all", "Programmed", "True").await;
    world
        .until("an event tells that it is programmed", async || {
            world.event("blue", "Programmed").await
        })
        .await;
}
