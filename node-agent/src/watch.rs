//! What the API server tells this node: exactly the objects that it needs, cut down to what it looks at.
//!
//! Each kind has a watch of its own that tells of its objects in the order in which they changed. While the API server
//! cannot be reached, what was told last stands.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, PodStatus, Service, Taint};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use weir_api::{AddressSlice, IdentitySlice, NodeDataplane};
use weir_policy::snapshot::{ObjectName, PodId};

use crate::address_book::{AddressSlices, IdentitySlices};

/// On a mirror pod: the uid by which the kubelet knows the static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Everything that was told. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// This node, and no other.
    pub node: Kind<String, OwnNode>,
    /// Of this node, those on its own network included.
    pub pods: Kind<PodId, Arc<Pod>>,
    pub services: Kind<ObjectName, Arc<Service>>,
    pub endpoint_slices: Kind<ObjectName, Arc<EndpointSlice>>,
    pub identity_slices: Kind<String, Arc<weir_api::IdentitySliceSpec>>,
    pub address_slices: Kind<String, Arc<weir_api::AddressSliceSpec>>,
    /// This node's, and no other.
    pub dataplane: Kind<String, OwnDataplane>,
}

/// The objects of one kind.
#[derive(Debug, Clone)]
pub struct Kind<K, V> {
    pub objects: Arc<BTreeMap<K, V>>,
    /// Goes up with every change; 0 until all objects were told once.
    pub version: u64,
    /// Of a list under way.
    listed: Option<BTreeMap<K, V>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnNode {
    pub uid: String,
    pub pod_cidrs: Vec<IpNet>,
    pub addresses: Vec<IpAddr>,
    pub taints: Vec<Taint>,
}

/// The spec is read later: a newer operator may have written what this agent does not know.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnDataplane {
    pub generation: i64,
    pub spec: Arc<Value>,
    pub status: Arc<Value>,
}

/// The running watches. They end when the runtime does.
#[derive(Debug, Clone)]
pub struct Watches {
    known: Arc<Mutex<Known>>,
    changed: Arc<Notify>,
}

impl<K, V> Default for Kind<K, V> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            version: 0,
            listed: None,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Kind<K, V> {
    /// Whether anything that counts has changed.
    fn take(&mut self, event: Event<(K, V)>, same: fn(&V, &V) -> bool) -> bool {
        let changed = match event {
            Event::Init => {
                self.listed = Some(BTreeMap::new());
                false
            }
            Event::InitApply((key, value)) => {
                self.listed.get_or_insert_default().insert(key, value);
                false
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let is_as_before = self.version > 0
                    && listed.len() == self.objects.len()
                    && listed
                        .iter()
                        .zip(self.objects.iter())
                        .all(|(new, old)| new.0 == old.0 && same(new.1, old.1));
                self.objects = Arc::new(listed);
                !is_as_before
            }
            Event::Apply((key, value)) => {
                let known = Arc::make_mut(&mut self.objects).insert(key, value.clone());
                known.is_none_or(|known| !same(&known, &value))
            }
            Event::Delete((key, _)) => Arc::make_mut(&mut self.objects).remove(&key).is_some(),
        };
        self.version += u64::from(changed);
        changed
    }
}

impl Known {
    /// Whether every kind was told whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let versions = [
            self.node.version,
            self.pods.version,
            self.services.version,
            self.endpoint_slices.version,
            self.identity_slices.version,
            self.address_slices.version,
            self.dataplane.version,
        ];
        versions.iter().all(|version| *version > 0)
    }

    #[must_use]
    pub fn identity_slices(&self) -> &IdentitySlices {
        &self.identity_slices.objects
    }

    #[must_use]
    pub fn address_slices(&self) -> &AddressSlices {
        &self.address_slices.objects
    }
}

impl Watches {
    /// Starts to watch for `node`.
    #[must_use]
    pub fn start(client: &Client, node: &str) -> Self {
        let this = Self {
            known: Arc::default(),
            changed: Arc::default(),
        };
        let named = || Config::default().fields(&format!("metadata.name={node}"));
        let here = Config::default().fields(&format!("spec.nodeName={node}"));
        let all = Config::default;
        let dataplanes = ApiResource::erase::<NodeDataplane>(&());
        this.watch(
            "Node",
            Api::<Node>::all(client.clone()),
            named(),
            |known| &mut known.node,
            own_node,
            PartialEq::eq,
        );
        this.watch(
            "Pod",
            Api::<Pod>::all(client.clone()),
            here,
            |known| &mut known.pods,
            own_pod,
            PartialEq::eq,
        );
        this.watch(
            "Service",
            Api::<Service>::all(client.clone()),
            all(),
            |known| &mut known.services,
            service,
            PartialEq::eq,
        );
        this.watch(
            "EndpointSlice",
            Api::<EndpointSlice>::all(client.clone()),
            all(),
            |known| &mut known.endpoint_slices,
            endpoint_slice,
            PartialEq::eq,
        );
        this.watch(
            "IdentitySlice",
            Api::<IdentitySlice>::all(client.clone()),
            all(),
            |known| &mut known.identity_slices,
            |slice| (name(&slice.metadata), Arc::new(slice.spec)),
            PartialEq::eq,
        );
        this.watch(
            "AddressSlice",
            Api::<AddressSlice>::all(client.clone()),
            all(),
            |known| &mut known.address_slices,
            |slice| (name(&slice.metadata), Arc::new(slice.spec)),
            PartialEq::eq,
        );
        this.watch(
            "NodeDataplane",
            Api::<DynamicObject>::all_with(client.clone(), &dataplanes),
            named(),
            |known| &mut known.dataplane,
            own_dataplane,
            // Its status is this agent's own.
            |a, b| a.spec == b.spec && a.generation == b.generation,
        );
        this
    }

    /// Waits until something has changed since it was asked last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    #[must_use]
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Values are whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch<T, K, V>(
        &self,
        kind: &'static str,
        api: Api<T>,
        config: Config,
        place: fn(&mut Known) -> &mut Kind<K, V>,
        cut: fn(T) -> (K, V),
        same: fn(&V, &V) -> bool,
    ) where
        T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K: Ord + Clone + Send + 'static,
        V: Clone + Send + 'static,
    {
        let this = self.clone();
        tokio::spawn(async move {
            let mut events = watcher(api, config).default_backoff().boxed();
            let mut failing = false;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if std::mem::take(&mut failing) {
                            info!(kind, "the API server can be watched again");
                        }
                        let event = cut_event(event, cut);
                        if place(&mut this.lock()).take(event, same) {
                            this.changed.notify_one();
                        }
                    }
                    Err(error) if is_out_of_date(&error) => {
                        debug!(
                            kind,
                            "the API server keeps no changes since the last one told; listing anew"
                        );
                    }
                    Err(error) if !failing => {
                        failing = true;
                        let error = format!("{:#}", anyhow::Error::from(error));
                        warn!(kind, error, "cannot watch; what was told last stands");
                    }
                    Err(_) => {}
                }
            }
        });
    }
}

/// 410 Gone: a watch can go on only for as long as the API server remembers what was when it began, a few minutes. What
/// follows is a list of all.
fn is_out_of_date(error: &watcher::Error) -> bool {
    const GONE: u16 = 410;
    match error {
        watcher::Error::WatchError(status) => status.code == GONE,
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == GONE)
        }
        watcher::Error::NoResourceVersion => false,
    }
}

fn cut_event<T, K, V>(event: Event<T>, cut: fn(T) -> (K, V)) -> Event<(K, V)> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(cut(object)),
        Event::Apply(object) => Event::Apply(cut(object)),
        Event::Delete(object) => Event::Delete(cut(object)),
    }
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn full_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn own_node(node: Node) -> (String, OwnNode) {
    let addresses = weir_policy::snapshot::Node::from(&node).addresses;
    let spec = node.spec.unwrap_or_default();
    let listed = spec.pod_cidrs.unwrap_or_default();
    let cidrs = if listed.is_empty() {
        spec.pod_cidr.into_iter().collect()
    } else {
        listed
    };
    let own = OwnNode {
        uid: node.metadata.uid.clone().unwrap_or_default(),
        pod_cidrs: cidrs
            .iter()
            .filter_map(|cidr| Some(cidr.parse::<IpNet>().ok()?.trunc()))
            .collect(),
        addresses,
        taints: spec.taints.unwrap_or_default(),
    };
    (name(&node.metadata), own)
}

/// What identity, flow log and host ports look at. Addresses are this node's to give.
fn own_pod(pod: Pod) -> (PodId, Arc<Pod>) {
    let key = full_name(&pod.metadata);
    let spec = pod.spec.unwrap_or_default();
    let container = |container: Container| Container {
        name: container.name,
        ports: container.ports,
        ..Container::default()
    };
    let controller = pod
        .metadata
        .owner_references
        .map(|owners| owners.into_iter().filter(|owner| owner.controller == Some(true)));
    let kept = Pod {
        metadata: ObjectMeta {
            namespace: pod.metadata.namespace,
            name: pod.metadata.name,
            uid: pod.metadata.uid,
            labels: pod.metadata.labels,
            annotations: mirror(pod.metadata.annotations),
            owner_references: controller.map(Iterator::collect),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: spec
                .init_containers
                .map(|containers| containers.into_iter().map(container).collect()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: pod.status.and_then(|status| status.phase),
            ..PodStatus::default()
        }),
    };
    (key, Arc::new(kept))
}

/// By which the kubelet knows a static pod.
fn mirror(annotations: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    let mut annotations = annotations?;
    annotations.retain(|key, _| key == MIRROR_ANNOTATION);
    (!annotations.is_empty()).then_some(annotations)
}

fn service(mut service: Service) -> (ObjectName, Arc<Service>) {
    let key = full_name(&service.metadata);
    service.metadata = cut_metadata(service.metadata);
    (key, Arc::new(service))
}

fn endpoint_slice(mut slice: EndpointSlice) -> (ObjectName, Arc<EndpointSlice>) {
    let key = full_name(&slice.metadata);
    slice.metadata = cut_metadata(slice.metadata);
    (key, Arc::new(slice))
}

fn cut_metadata(metadata: ObjectMeta) -> ObjectMeta {
    let annotations = metadata.annotations.map(|mut annotations| {
        annotations.retain(|key, _| key.starts_with("service.kubernetes.io/"));
        annotations
    });
    ObjectMeta {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        labels: metadata.labels,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        creation_timestamp: metadata.creation_timestamp,
        ..ObjectMeta::default()
    }
}

fn own_dataplane(object: DynamicObject) -> (String, OwnDataplane) {
    let mut data = object.data;
    let own = OwnDataplane {
        generation: object.metadata.generation.unwrap_or_default(),
        spec: Arc::new(data["spec"].take()),
        status: Arc::new(data["status"].take()),
    };
    (name(&object.metadata), own)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn same(a: &u32, b: &u32) -> bool {
        a == b
    }

    #[test]
    fn a_list_counts_when_it_is_whole() {
        let mut kind = Kind::<&str, u32>::default();
        let mut take = |event| (kind.take(event, same), kind.version, (*kind.objects).clone());
        let none = BTreeMap::new();
        assert_eq!(take(Event::Init), (false, 0, none.clone()));
        assert_eq!(take(Event::InitApply(("a", 1))), (false, 0, none.clone()));
        assert_eq!(take(Event::InitDone), (true, 1, BTreeMap::from([("a", 1)])));
        assert_eq!(
            take(Event::Apply(("a", 1))),
            (false, 1, BTreeMap::from([("a", 1)]))
        );
        assert_eq!(
            take(Event::Apply(("b", 2))),
            (true, 2, BTreeMap::from([("a", 1), ("b", 2)]))
        );
        // The watch starts over: what stands stays until the list is whole.
        take(Event::Init);
        assert_eq!(
            take(Event::InitApply(("b", 3))),
            (false, 2, BTreeMap::from([("a", 1), ("b", 2)]))
        );
        assert_eq!(take(Event::InitDone), (true, 3, BTreeMap::from([("b", 3)])));
        take(Event::Init);
        take(Event::InitApply(("b", 3)));
        assert_eq!(take(Event::InitDone), (false, 3, BTreeMap::from([("b", 3)])));
        assert_eq!(take(Event::Delete(("b", 3))), (true, 4, none.clone()));
        assert_eq!(take(Event::Delete(("b", 3))), (false, 4, none));
    }

    #[test]
    fn a_watch_that_is_out_of_date_is_no_failure() {
        let status = |code: u16| Box::new(kube::core::Status::failure("why", "Because").with_code(code));
        let api = |code| kube::Error::Api(status(code));
        assert!(is_out_of_date(&watcher::Error::WatchError(status(410))));
        assert!(is_out_of_date(&watcher::Error::WatchStartFailed(api(410))));
        assert!(!is_out_of_date(&watcher::Error::WatchError(status(403))));
        assert!(!is_out_of_date(&watcher::Error::InitialListFailed(api(500))));
        assert!(!is_out_of_date(&watcher::Error::NoResourceVersion));
    }

    #[test]
    fn nothing_at_all_is_whole_too() {
        let mut kind = Kind::<&str, u32>::default();
        kind.take(Event::Init, same);
        assert!(kind.take(Event::InitDone, same) && kind.version == 1);
    }

    #[test]
    fn a_pod_is_cut_down_to_what_counts() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "annotations": {"x": "y"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}
                ]},
            "spec": {"nodeName": "n1", "hostNetwork": false, "serviceAccountName": "s",
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "startTime": "2026-01-01T00:00:00Z"}
        }))
        .expect("a pod");
        let expected: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "labels": {"a": "b"},
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}
                ]},
            "spec": {"nodeName": "n1", "hostNetwork": false,
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running"}
        }))
        .expect("a pod");
        assert_eq!(own_pod(pod), (PodId::new("shop", "p"), Arc::new(expected)));
    }

    #[test]
    fn a_node_without_a_list_of_pod_cidrs_has_its_one() {
        let node = |spec: Value| {
            let node = json!({"metadata": {"name": "n1", "uid": "u"}, "spec": spec});
            own_node(serde_json::from_value(node).expect("a node"))
                .1
                .pod_cidrs
        };
        let cidr = |text: &str| text.parse::<IpNet>().expect("a CIDR");
        assert_eq!(node(json!({"podCIDR": "10.0.1.0/24"})), [cidr("10.0.1.0/24")]);
        assert_eq!(
            node(json!({"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00:1::/64"]})),
            [cidr("10.0.1.0/24"), cidr("fd00:1::/64")]
        );
    }
}
