//! The watches: each kind in a task of its own, cut down to what matters before it is handed on.

use futures_util::TryStreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weir_api::{
    AddressSlice, ClusterNetworkPolicy, DataplaneConfig, FlowLogPolicy, IdentitySlice, NodeDataplane,
    PolicyStatus,
};

use crate::convert;
use crate::metrics::Metrics;
use crate::specs::Specs;
use crate::world::{Item, Kind, Name, Update};

/// How many updates wait at most before the watches do.
const QUEUE: usize = 8192;

/// The namespace with the agents' Leases is `namespace`. The watches end when the set is dropped.
#[must_use]
pub fn watch_all(
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
    specs: &Specs,
) -> (JoinSet<()>, mpsc::Receiver<Update>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watches = Watches {
        client: client.clone(),
        sender,
        metrics: metrics.clone(),
        specs: specs.clone(),
    };
    (watches.start(namespace), receiver)
}

struct Watches {
    client: Client,
    sender: mpsc::Sender<Update>,
    metrics: Metrics,
    specs: Specs,
}

impl Watches {
    fn start(&self, namespace: &str) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let everything = Config::default;
        // A pod that is over may share its address with another one.
        let live = everything().fields("status.phase!=Succeeded,status.phase!=Failed");
        let named = |metadata: &kube::core::ObjectMeta, item| Some((convert::name(metadata), item));
        let all = self.client.clone();
        tasks.spawn(self.watch(
            Kind::Namespace,
            Api::<Namespace>::all(all.clone()),
            everything(),
            move |it| named(&it.metadata, convert::namespace(&it)),
        ));
        tasks.spawn(
            self.watch(Kind::Pod, Api::<Pod>::all(all.clone()), live, move |it| {
                named(&it.metadata, convert::pod(&it))
            }),
        );
        tasks.spawn(self.watch(
            Kind::Node,
            Api::<Node>::all(all.clone()),
            everything(),
            move |it| named(&it.metadata, convert::node(&it)),
        ));
        tasks.spawn(self.watch(
            Kind::NetworkPolicy,
            Api::<NetworkPolicy>::all(all.clone()),
            everything(),
            move |it| Some((convert::name(&it.metadata), convert::network_policy(it))),
        ));
        let leases = Api::<Lease>::namespaced(all, namespace);
        tasks.spawn(self.watch(Kind::Lease, leases, everything(), convert::lease));
        self.watch_custom(&mut tasks);
        tasks
    }

    /// Each object is read on its own: one that cannot be read must not end the watch of all.
    fn watch_custom(&self, tasks: &mut JoinSet<()>) {
        type Convert = fn(DynamicObject) -> Item;
        let kinds: [(Kind, ApiResource, Convert); 6] = [
            (
                Kind::ClusterNetworkPolicy,
                ApiResource::erase::<ClusterNetworkPolicy>(&()),
                convert::cluster_policy,
            ),
            (
                Kind::FlowLogPolicy,
                ApiResource::erase::<FlowLogPolicy>(&()),
                |it| convert::flow_log_policy(&it),
            ),
            (
                Kind::DataplaneConfig,
                ApiResource::erase::<DataplaneConfig>(&()),
                |it| convert::dataplane_config(&it),
            ),
            (
                Kind::IdentitySlice,
                ApiResource::erase::<IdentitySlice>(&()),
                |it| Item::IdentitySlice(convert::slice(&it)),
            ),
            (
                Kind::AddressSlice,
                ApiResource::erase::<AddressSlice>(&()),
                |it| Item::AddressSlice(convert::slice(&it)),
            ),
            (
                Kind::PolicyStatus,
                ApiResource::erase::<PolicyStatus>(&()),
                |it| convert::policy_status(&it),
            ),
        ];
        for (kind, resource, convert) in kinds {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
            let item = move |it: DynamicObject| Some((convert::name(&it.metadata), convert(it)));
            tasks.spawn(self.watch(kind, api, Config::default(), item));
        }
        let resource = ApiResource::erase::<NodeDataplane>(&());
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let specs = self.specs.clone();
        let item = move |it: DynamicObject| {
            Some((convert::name(&it.metadata), convert::node_dataplane(&it, &specs)))
        };
        tasks.spawn(self.watch(Kind::NodeDataplane, api, Config::default(), item));
    }

    fn watch<K, F>(
        &self,
        kind: Kind,
        api: Api<K>,
        config: Config,
        convert: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
        F: Fn(K) -> Option<(Name, Item)> + Send + 'static,
    {
        let (sender, metrics) = (self.sender.clone(), self.metrics.clone());
        async move {
            let mut events = Box::pin(watcher(api, config).default_backoff());
            let mut listed = Vec::new();
            loop {
                let update = match events.try_next().await {
                    Ok(Some(event)) => handle(kind, event, &convert, &mut listed),
                    Ok(None) => return,
                    Err(error) => {
                        metrics.watch_failed(kind);
                        tracing::warn!(?kind, %error, "a watch failed and is started again");
                        None
                    }
                };
                if let Some(update) = update
                    && sender.send(update).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

fn handle<K: Resource>(
    kind: Kind,
    event: Event<K>,
    convert: &impl Fn(K) -> Option<(Name, Item)>,
    listed: &mut Vec<(Name, Item)>,
) -> Option<Update> {
    match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(object) => {
            listed.extend(convert(object));
            None
        }
        Event::InitDone => Some(Update::All(kind, std::mem::take(listed))),
        Event::Apply(object) => {
            let (name, item) = convert(object)?;
            Some(Update::Set(name, Box::new(item)))
        }
        Event::Delete(object) => {
            let uid = object.uid().unwrap_or_default();
            let name = match convert(object) {
                Some((name, _)) => name,
                None => return None,
            };
            Some(Update::Removed { kind, name, uid })
        }
    }
}
