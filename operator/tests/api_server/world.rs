//! What people, kubelets and agents do to an API server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use weir_operator::health::{Health, Phase, serve};
use weir_operator::metrics::Metrics;
use weir_operator::run::{End, Replica, operate};

/// A kind of ours, and its plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(&'static str, &'static str);

pub(crate) const ADDRESS_SLICE: Kind = Kind("AddressSlice", "addressslices");
pub(crate) const CLUSTER_POLICY: Kind = Kind("ClusterNetworkPolicy", "clusternetworkpolicies");
pub(crate) const CONFIG: Kind = Kind("DataplaneConfig", "dataplaneconfigs");
pub(crate) const FLOW_LOG_POLICY: Kind = Kind("FlowLogPolicy", "flowlogpolicies");
pub(crate) const IDENTITY_SLICE: Kind = Kind("IdentitySlice", "identityslices");
pub(crate) const NODE_DATAPLANE: Kind = Kind("NodeDataplane", "nodedataplanes");
pub(crate) const POLICY_STATUS: Kind = Kind("PolicyStatus", "policystatuses");

pub(crate) struct World {
    pub(crate) client: Client,
    config: Config,
}

/// A replica of the operator.
pub(crate) struct Running {
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// Where it answers over HTTP.
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<End>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.task.await.unwrap(), End::Stopped);
    }
}

/// A port of the loopback interface that nobody listens at.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// What a watch has told of one PolicyStatus. It ends when this is dropped.
pub(crate) struct Told {
    in_force: Arc<Mutex<BTreeSet<i64>>>,
    _task: JoinSet<()>,
}

impl Told {
    /// The generations of the policy that were told to be programmed.
    pub(crate) fn generations_in_force(&self) -> BTreeSet<i64> {
        self.in_force.lock().unwrap().clone()
    }
}

/// The condition of a status; null if there is none.
pub(crate) fn condition(status: &Value, name: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut found = conditions
        .into_iter()
        .filter(|condition| condition["type"] == name);
    found.next().unwrap_or_default()
}

impl World {
    pub(crate) async fn new(kubeconfig: &Path) -> Self {
        let read = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        let world = Self { client, config };
        world.install().await;
        world.namespace("weir-system", json!({})).await;
        world
    }

    async fn install(&self) {
        let definitions: Vec<CustomResourceDefinition> = vec![
            weir_api::address_slice::custom_resource_definition().unwrap(),
            weir_api::cluster_network_policy::custom_resource_definition(
                weir_api::cluster_network_policy::Channel::Standard,
            )
            .unwrap(),
            weir_api::dataplane_config::custom_resource_definition().unwrap(),
            weir_api::flow_log_policy::custom_resource_definition().unwrap(),
            weir_api::identity_slice::custom_resource_definition().unwrap(),
            weir_api::node_dataplane::custom_resource_definition().unwrap(),
            weir_api::policy_status::custom_resource_definition().unwrap(),
        ];
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        for definition in &definitions {
            api.create(&PostParams::default(), definition).await.unwrap();
        }
        for definition in &definitions {
            let name = definition.metadata.name.clone().unwrap();
            self.until("a definition is established", async || {
                let conditions = api.get(&name).await.ok()?.status?.conditions?;
                conditions
                    .iter()
                    .any(|it| it.type_ == "Established" && it.status == "True")
                    .then_some(())
            })
            .await;
        }
    }

    /// Starts a replica, and waits until it leads.
    pub(crate) async fn start(&self, identity: &str) -> Running {
        let running = self.start_standby(identity);
        self.until("the replica leads", async || {
            (running.health.phase() == Phase::Leading).then_some(())
        })
        .await;
        running
    }

    pub(crate) fn start_standby(&self, identity: &str) -> Running {
        let replica = Replica {
            client: Client::try_from(self.config.clone()).unwrap(),
            namespace: "weir-system".to_owned(),
            identity: identity.to_owned(),
            health: Health::default(),
            metrics: Metrics::new().unwrap(),
        };
        let (health, metrics) = (replica.health.clone(), replica.metrics.clone());
        let (stop, stopped) = oneshot::channel();
        let address = free_address();
        let serving = serve(address, health.clone(), metrics.clone());
        let task = tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.await;
            };
            tokio::select! {
                served = serving => panic!("metrics and health are not served: {served:?}"),
                end = operate(replica, stop) => end,
            }
        });
        Running {
            health,
            metrics,
            address,
            stop,
            task,
        }
    }

    /// Asks until there is an answer.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        for _ in 0..300 {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not within thirty seconds: {what}");
    }

    pub(crate) fn custom(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = match kind {
            CLUSTER_POLICY => ("policy.networking.k8s.io", "v1alpha2"),
            _ => ("dataplane.weir.dev", "v1alpha1"),
        };
        let named = GroupVersionKind::gvk(group, version, kind.0);
        let resource = ApiResource::from_gvk_with_plural(&named, kind.1);
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    pub(crate) async fn get_custom(&self, kind: Kind, namespace: &str, name: &str) -> Option<DynamicObject> {
        self.custom(kind, namespace).get_opt(name).await.unwrap()
    }

    pub(crate) async fn spec(&self, node: &str) -> Option<Value> {
        let object = self.get_custom(NODE_DATAPLANE, "", node).await?;
        Some(object.data["spec"].clone())
    }

    pub(crate) async fn spec_generation(&self, node: &str) -> i64 {
        let object = self.get_custom(NODE_DATAPLANE, "", node).await.unwrap();
        object.metadata.generation.unwrap()
    }

    pub(crate) async fn status_now(&self, kind: Kind, name: &str) -> Option<Value> {
        Some(self.get_custom(kind, "", name).await?.data["status"].clone())
    }

    /// Waits until a condition has a status for the object's generation.
    pub(crate) async fn status(&self, kind: Kind, name: &str, of: &str, expected: &str) -> Value {
        self.until(&format!("{} {name} is {of}={expected}", kind.0), async || {
            let object = self.get_custom(kind, "", name).await?;
            let status = object.data["status"].clone();
            let found = condition(&status, of);
            let is_new = found["observedGeneration"].as_i64() == object.metadata.generation;
            (is_new && found["status"] == expected).then_some(status)
        })
        .await
    }

    pub(crate) async fn policy_status(&self, namespace: &str, name: &str, of: &str, expected: &str) -> Value {
        let policies = Api::<NetworkPolicy>::namespaced(self.client.clone(), namespace);
        self.until(
            &format!("NetworkPolicy {namespace}/{name} is {of}={expected}"),
            async || {
                let generation = policies.get(name).await.unwrap().metadata.generation;
                let object = self.get_custom(POLICY_STATUS, namespace, name).await?;
                let status = object.data["status"].clone();
                let found = condition(&status, of);
                let is_new = found["observedGeneration"].as_i64() == generation;
                (is_new && found["status"] == expected).then_some(status)
            },
        )
        .await
    }

    pub(crate) fn watch_programmed(&self, namespace: &str, name: &str) -> Told {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(self.custom(POLICY_STATUS, namespace), config);
        let in_force = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&in_force);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut objects = Box::pin(events.default_backoff().applied_objects());
            while let Ok(Some(object)) = objects.try_next().await {
                let programmed = condition(&object.data["status"], "Programmed");
                if programmed["status"] == "True" {
                    let generation = programmed["observedGeneration"].as_i64().unwrap();
                    noted.lock().unwrap().insert(generation);
                }
            }
        });
        Told {
            in_force,
            _task: task,
        }
    }

    pub(crate) async fn node(&self, name: &str) {
        let number = name.trim_start_matches('n').parse::<u8>().unwrap() - 1;
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"podCIDRs": [format!("10.0.{number}.0/24")], "podCIDR": format!("10.0.{number}.0/24")},
        })).unwrap();
        let api = Api::<Node>::all(self.client.clone());
        api.create(&PostParams::default(), &node).await.unwrap();
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": format!("172.16.0.{number}")}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        let api = Api::<Namespace>::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }

    pub(crate) async fn pod(&self, namespace: &str, name: &str, node: &str, address: &str, labels: Value) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "none"}],
            },
        }))
        .unwrap();
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &pod).await.unwrap();
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn set_pod_labels(&self, namespace: &str, name: &str, labels: Value) {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"labels": labels}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn pod_annotation(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": {key: value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn network_policy(&self, namespace: &str, name: &str, spec: Value) {
        let api = Api::<NetworkPolicy>::namespaced(self.client.clone(), namespace);
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
        });
        let parameters = PatchParams::apply("a-person").force();
        api.patch(name, &parameters, &Patch::Apply(policy)).await.unwrap();
    }

    pub(crate) async fn network_policy_label(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let api = Api::<NetworkPolicy>::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"labels": {key: value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn delete_network_policy(&self, namespace: &str, name: &str) {
        let api = Api::<NetworkPolicy>::namespaced(self.client.clone(), namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn create(&self, object: Value) {
        self.try_create(&object).await.unwrap();
    }

    /// As soon as the API server goes by a definition that was changed.
    pub(crate) async fn create_when_allowed(&self, object: Value) {
        self.until("the changed definition is in force", async || {
            self.try_create(&object).await.ok()
        })
        .await;
    }

    async fn try_create(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let kinds = [CLUSTER_POLICY, CONFIG, FLOW_LOG_POLICY];
        let kind = kinds.into_iter().find(|kind| object["kind"] == kind.0).unwrap();
        let api = self.custom(kind, "");
        api.create(
            &PostParams::default(),
            &serde_json::from_value(object.clone()).unwrap(),
        )
        .await
    }

    /// Takes the schema out of a definition, as if it were that of a version with other words.
    pub(crate) async fn loosen(&self, name: &str) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let mut definition = api.get(name).await.unwrap();
        let mut spec = serde_json::to_value(&definition.spec).unwrap();
        spec["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        definition.spec = serde_json::from_value(spec).unwrap();
        api.replace(name, &PostParams::default(), &definition)
            .await
            .unwrap();
    }

    /// The node's agent renews its Lease.
    pub(crate) async fn agent_lives(&self, node: &str, seconds: i32) {
        let name = format!("weir-agent-{node}");
        let now = k8s_openapi::jiff::Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {
                "holderIdentity": node, "leaseDurationSeconds": seconds,
                "renewTime": format!("{now:.6}"),
            },
        });
        let api = Api::<Lease>::namespaced(self.client.clone(), "weir-system");
        api.patch(
            &name,
            &PatchParams::apply("weir-agent").force(),
            &Patch::Apply(lease),
        )
        .await
        .unwrap();
    }

    /// The node's agent says that its kernel holds the spec as it is.
    pub(crate) async fn acknowledge(&self, node: &str) {
        let generation = self.spec_generation(node).await;
        self.report(node, json!({"programmedGeneration": generation}))
            .await;
    }

    pub(crate) async fn acknowledge_all(&self) {
        for node in ["n1", "n2"] {
            self.acknowledge(node).await;
        }
    }

    /// Waits until an object is told to be wrong, for this reason and with words that contain these.
    pub(crate) async fn not_accepted(&self, kind: Kind, name: &str, reason: &str, words: &str) {
        let status = self.status(kind, name, "Accepted", "False").await;
        let accepted = condition(&status, "Accepted");
        assert_eq!(accepted["reason"], reason);
        assert!(
            accepted["message"].as_str().unwrap().contains(words),
            "{accepted}"
        );
    }

    pub(crate) async fn refuse(&self, node: &str, field: &str, message: &str) {
        self.report(node, json!({"refused": [{"field": field, "message": message}]}))
            .await;
    }

    async fn report(&self, node: &str, status: Value) {
        let api = self.custom(NODE_DATAPLANE, "");
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(node, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn event(&self, object: &str, reason: &str) -> Option<()> {
        let events = Api::<Event>::all(self.client.clone())
            .list(&ListParams::default())
            .await
            .unwrap();
        let tells = |event: &Event| {
            event.involved_object.name.as_deref() == Some(object) && event.reason.as_deref() == Some(reason)
        };
        events.items.iter().any(tells).then_some(())
    }
}
