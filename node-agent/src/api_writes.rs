//! What the agent writes to the API server, and no more: its status, its Lease, and its node's taint.
//!
//! Each has a task of its own that writes the last thing asked for and tries again; nothing waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use weir_api::NodeDataplane;
use weir_api::node_dataplane::NodeDataplaneStatus;

/// The taint that keeps pods from a node whose dataplane is not ready.
pub const NOT_READY_TAINT: &str = "dataplane.weir.dev/not-ready";

const FIELD_MANAGER: &str = "weir-agent";
/// An agent that has not renewed its Lease for so long is cut off.
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// An agent whose loop stands still is not alive, whatever this task does.
const LOOP_SILENCE: u64 = 30;
/// Of one call.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Where the wishes go.
#[derive(Debug, Clone)]
pub struct ApiWrites {
    status: watch::Sender<Option<NodeDataplaneStatus>>,
    owner: watch::Sender<Option<Owned>>,
    heartbeat: Arc<AtomicU64>,
}

/// The Node, as far as writing needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Owned {
    pub uid: String,
    pub taints: Vec<Taint>,
    /// Pods may come.
    pub ready: bool,
}

impl ApiWrites {
    /// Starts the tasks, which end when the runtime does.
    #[must_use]
    pub fn start(client: &Client, node: &str, namespace: &str) -> Self {
        let this = Self {
            status: watch::Sender::new(None),
            owner: watch::Sender::new(None),
            heartbeat: Arc::new(AtomicU64::new(seconds())),
        };
        tokio::spawn(write_status(
            Api::all(client.clone()),
            node.to_owned(),
            this.status.subscribe(),
        ));
        tokio::spawn(remove_taint(
            Api::all(client.clone()),
            node.to_owned(),
            this.owner.subscribe(),
        ));
        tokio::spawn(renew_lease(
            Api::namespaced(client.clone(), namespace),
            node.to_owned(),
            this.owner.subscribe(),
            Arc::clone(&this.heartbeat),
        ));
        this
    }

    /// The status is written if it is another than the last one.
    pub fn report(&self, status: NodeDataplaneStatus) {
        self.status.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&status);
            *last = Some(status);
            changed
        });
    }

    pub fn set_node(&self, node: Owned) {
        self.owner.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&node);
            *last = Some(node);
            changed
        });
    }

    /// To be called by the agent's loop: the Lease is renewed only while it is.
    pub fn beat(&self) {
        self.heartbeat.store(seconds(), Ordering::Relaxed);
    }
}

fn seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

async fn write_status(
    api: Api<NodeDataplane>,
    node: String,
    mut wanted: watch::Receiver<Option<NodeDataplaneStatus>>,
) {
    let mut failing = false;
    while wanted.changed().await.is_ok() {
        loop {
            let Some(status) = wanted.borrow_and_update().clone() else {
                break;
            };
            let patch = status_patch(&node, &status);
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let written = call(api.patch_status(&node, &params, &Patch::Apply(&patch))).await;
            match written {
                Ok(_) => {
                    if std::mem::take(&mut failing) {
                        info!("the status is written again");
                    }
                    break;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error, "cannot write the NodeDataplane's status; trying again");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn status_patch(node: &str, status: &NodeDataplaneStatus) -> Value {
    json!({
        "apiVersion": NodeDataplane::api_version(&()),
        "kind": NodeDataplane::kind(&()),
        "metadata": {"name": node},
        "status": status,
    })
}

async fn remove_taint(api: Api<Node>, node: String, mut wanted: watch::Receiver<Option<Owned>>) {
    while wanted.changed().await.is_ok() {
        let Some(owned) = wanted.borrow_and_update().clone() else {
            continue;
        };
        if let Some(patch) = taint_patch(&owned) {
            let written = call(api.patch(&node, &PatchParams::default(), &Patch::Json::<()>(patch))).await;
            match written {
                Ok(_) => info!("the node's taint {NOT_READY_TAINT} is removed"),
                // Somebody changed the taints meanwhile: the watch tells of it, and it is tried again.
                Err(error) => {
                    warn!(error, "cannot remove the node's taint");
                    tokio::time::sleep(RETRY).await;
                    wanted.mark_changed();
                }
            }
        }
    }
}

/// Removes our taint, whatever its effects, where it stands, if it still stands there. From the end, so that no place
/// changes meanwhile.
fn taint_patch(node: &Owned) -> Option<json_patch::Patch> {
    let places = node.taints.iter().enumerate().rev();
    let ours = places.filter(|(_, taint)| taint.key == NOT_READY_TAINT);
    let steps: Vec<Value> = ours
        .flat_map(|(index, _)| {
            let path = format!("/spec/taints/{index}");
            [
                json!({"op": "test", "path": format!("{path}/key"), "value": NOT_READY_TAINT}),
                json!({"op": "remove", "path": path}),
            ]
        })
        .collect();
    if steps.is_empty() || !node.ready {
        return None;
    }
    serde_json::from_value(Value::Array(steps)).ok()
}

async fn renew_lease(
    api: Api<Lease>,
    node: String,
    owner: watch::Receiver<Option<Owned>>,
    heartbeat: Arc<AtomicU64>,
) {
    let mut renew = tokio::time::interval(RENEW_EVERY);
    renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        renew.tick().await;
        if seconds().saturating_sub(heartbeat.load(Ordering::Relaxed)) > LOOP_SILENCE {
            continue;
        }
        let uid = owner.borrow().as_ref().map(|owner| owner.uid.clone());
        let lease = lease(&node, uid, Timestamp::now());
        match renewed(&api, &lease).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    info!("the Lease is renewed again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(error, "cannot renew the Lease; trying again");
                }
            }
        }
    }
}

async fn renewed(api: &Api<Lease>, lease: &Lease) -> Result<(), String> {
    let name = lease.metadata.name.clone().unwrap_or_default();
    let (params, patch) = (PatchParams::default(), Patch::Merge(lease));
    match timeout(PATIENCE, api.patch(&name, &params, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            call(api.create(&PostParams::default(), lease)).await.map(|_| ())
        }
        Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::from(error))),
        Err(_) => Err(no_answer()),
    }
}

/// Goes with its Node.
fn lease(node: &str, uid: Option<String>, now: Timestamp) -> Lease {
    let owner = uid.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid,
            ..OwnerReference::default()
        }]
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(format!("weir-agent-{node}")),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/name".to_owned(),
                "weir-agent".to_owned(),
            )])),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::from(error))),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> String {
    format!("no answer within {} seconds", PATIENCE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        }
    }

    #[test]
    fn only_our_taint_goes_and_only_when_the_node_is_ready() {
        let node = Owned {
            uid: "u".to_owned(),
            taints: vec![taint(NOT_READY_TAINT), taint("a"), taint(NOT_READY_TAINT)],
            ready: true,
        };
        assert_eq!(
            serde_json::to_value(taint_patch(&node)).expect("a value"),
            json!([
                {"op": "test", "path": "/spec/taints/2/key", "value": "dataplane.weir.dev/not-ready"},
                {"op": "remove", "path": "/spec/taints/2"},
                {"op": "test", "path": "/spec/taints/0/key", "value": "dataplane.weir.dev/not-ready"},
                {"op": "remove", "path": "/spec/taints/0"},
            ])
        );
        let not_ready = Owned {
            ready: false,
            ..node.clone()
        };
        assert_eq!(taint_patch(&not_ready), None);
        let others = Owned {
            taints: vec![taint("a")],
            ..node
        };
        assert_eq!(taint_patch(&others), None);
    }

    #[test]
    fn a_lease_goes_with_its_node() {
        let now = Timestamp::from_second(100).expect("a time");
        assert_eq!(
            serde_json::to_value(lease("n1", Some("u".to_owned()), now)).expect("a value"),
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": "weir-agent-n1",
                    "labels": {"app.kubernetes.io/name": "weir-agent"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}]
                },
                "spec": {
                    "holderIdentity": "n1",
                    "leaseDurationSeconds": 40,
                    "renewTime": "1970-01-01T00:01:40.000000Z"
                }
            })
        );
    }
}
