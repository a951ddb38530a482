//! Writes objects: by server-side apply, a bounded number at a time, again where the API server was busy.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};
use weir_api::identity_slice::HEAD;
use weir_api::{
    AddressSlice, ClusterNetworkPolicy, DataplaneConfig, FlowLogPolicy, IdentitySlice, NodeDataplane,
    PolicyStatus, PolicyStatusSpec,
};

use crate::cluster::Cluster;
use crate::convert;
use crate::existing::Existing;
use crate::metrics::{Metrics, WriteResult};
use crate::plan::Wanted;
use crate::specs::Specs;
use crate::statuses::{Status, Subject};
use crate::writes::Writes;

pub const FIELD_MANAGER: &str = "weir-operator";

/// How many requests are under way at a time. An API server with few cores answers no more of them at once, and whoever
/// renews a Lease waits behind them.
const CONCURRENCY: usize = 16;
/// How many specs are in memory as JSON at a time.
const SPECS: usize = 64;
/// Waits between the tries of one request.
const WAITS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(2),
];

#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Metrics,
    specs: Specs,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// A status to be written.
#[derive(Debug, Clone)]
pub struct Due {
    pub status: Status,
    pub conditions: Vec<Condition>,
    /// The object that carries it is as it should be.
    pub is_sound: bool,
}

/// A kind, and where its objects are.
#[derive(Clone)]
struct Place {
    api: Api<DynamicObject>,
    resource: ApiResource,
}

impl Writer {
    #[must_use]
    pub fn new(client: Client, metrics: Metrics, specs: Specs) -> Self {
        Self {
            client,
            metrics,
            specs,
        }
    }

    /// Writes the address book: slices, then the slices that have become superfluous, then the heads.
    ///
    /// # Errors
    /// The first write that failed; none of a later stage was begun.
    pub async fn book(&self, writes: &Writes, existing: &mut Existing) -> Result<(), kube::Error> {
        let identities = self.place::<IdentitySlice>();
        let addresses = self.place::<AddressSlice>();
        for (name, object) in self.apply_all(&identities, &writes.identity_slices).await? {
            existing.set_identity_slice(name, convert::slice(&object));
        }
        for (name, object) in self.apply_all(&addresses, &writes.address_slices).await? {
            existing.set_address_slice(name, convert::slice(&object));
        }
        for name in &writes.stale_address_slices {
            self.delete(&addresses, name).await?;
            existing.address_slices.remove(name);
        }
        for name in &writes.stale_identity_slices {
            self.delete(&identities, name).await?;
            existing.identity_slices.remove(name);
        }
        if let Some(head) = &writes.identity_head {
            let object = self.apply(&identities, HEAD, &json!({ "spec": head })).await?;
            existing.set_identity_slice(HEAD.to_owned(), convert::slice(&object));
        }
        if let Some(head) = &writes.address_head {
            let object = self.apply(&addresses, HEAD, &json!({ "spec": head })).await?;
            existing.set_address_slice(HEAD.to_owned(), convert::slice(&object));
        }
        Ok(())
    }

    /// Writes NodeDataplanes. One that fails does not keep the others from being written.
    ///
    /// # Errors
    /// The last failure.
    pub async fn nodes(
        &self,
        names: &[String],
        address_book: i64,
        cluster: &Cluster,
        wanted: &Wanted,
        existing: &mut Existing,
    ) -> Result<(), kube::Error> {
        let place = self.place::<NodeDataplane>();
        let mut outcome = Ok(());
        for names in names.chunks(SPECS) {
            let mut bodies = Vec::new();
            for name in names {
                let (Some(spec), Some(held), Some(facts)) = (
                    wanted.spec(name, address_book),
                    wanted.held(name, address_book),
                    cluster.nodes.get(name),
                ) else {
                    continue;
                };
                existing.attempt(name, Arc::new(held));
                let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": name, "uid": facts.uid });
                bodies.push((
                    name,
                    json!({ "metadata": { "ownerReferences": [owner] }, "spec": spec }),
                ));
            }
            let place = &place;
            let requests: Vec<_> = bodies
                .into_iter()
                .map(|(name, body)| async move { (name, self.apply(place, name, &body).await) })
                .collect();
            let answers: Vec<_> = stream::iter(requests)
                .buffer_unordered(CONCURRENCY)
                .collect()
                .await;
            for (name, answer) in answers {
                match answer {
                    Ok(object) => {
                        existing.set_node(name.clone(), convert::node_object(&object, &self.specs));
                        existing.settle(name);
                    }
                    Err(error) => {
                        tracing::warn!(node = name, %error, "a NodeDataplane could not be written");
                        if is_refusal(&error) {
                            existing.settle(name);
                        }
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    /// Writes statuses, and says of each whether it was written.
    pub async fn statuses(&self, statuses: Vec<Due>) -> Vec<(Due, bool)> {
        let write = |due: Due| async move {
            let written = match self.status(&due).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::info!(subject = %due.status.subject, %error, "a status could not be written");
                    false
                }
            };
            (due, written)
        };
        let requests: Vec<_> = statuses.into_iter().map(write).collect();
        stream::iter(requests)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }

    async fn status(&self, due: &Due) -> Result<(), kube::Error> {
        let Due {
            status,
            conditions,
            is_sound,
        } = due;
        let mut told = json!({ "conditions": conditions });
        if let Some(nodes) = &status.nodes {
            told["nodes"] = json!(nodes);
        }
        let body = json!({ "status": told });
        match &status.subject {
            Subject::NetworkPolicy(policy) => {
                let place = self.place_in::<PolicyStatus>(&policy.namespace);
                let owner = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "name": policy.name, "uid": status.uid,
                });
                let head = json!({
                    "metadata": { "ownerReferences": [owner] },
                    "spec": PolicyStatusSpec { policy_uid: status.uid.clone() },
                });
                if !is_sound {
                    self.status_of_policy(&place, &policy.name, &head).await?;
                }
                self.apply_status(&place, &policy.name, &body).await?;
            }
            Subject::ClusterNetworkPolicy(name) => {
                self.apply_status(&self.place::<ClusterNetworkPolicy>(), name, &body)
                    .await?;
            }
            Subject::DataplaneConfig(name) => {
                self.apply_status(&self.place::<DataplaneConfig>(), name, &body)
                    .await?;
            }
            Subject::FlowLogPolicy(name) => {
                self.apply_status(&self.place::<FlowLogPolicy>(), name, &body)
                    .await?;
            }
        }
        Ok(())
    }

    /// Makes the PolicyStatus itself.
    async fn status_of_policy(&self, place: &Place, name: &str, head: &Value) -> Result<(), kube::Error> {
        match self.apply(place, name, head).await {
            // It is that of an earlier policy of this name.
            Err(kube::Error::Api(refusal)) if refusal.code == 422 => {
                self.delete(place, name).await?;
                self.apply(place, name, head).await?;
            }
            answer => {
                answer?;
            }
        }
        Ok(())
    }

    async fn apply_all<S: Serialize>(
        &self,
        place: &Place,
        specs: &std::collections::BTreeMap<String, S>,
    ) -> Result<Vec<(String, DynamicObject)>, kube::Error> {
        let write = |(name, spec): (&String, &S)| {
            let (name, body) = (name.clone(), json!({ "spec": spec }));
            async move {
                let object = self.apply(place, &name, &body).await?;
                Ok((name, object))
            }
        };
        let requests: Vec<_> = specs.iter().map(write).collect();
        let answers: Vec<Result<_, kube::Error>> = stream::iter(requests)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        answers.into_iter().collect()
    }

    async fn apply(&self, place: &Place, name: &str, body: &Value) -> Result<DynamicObject, kube::Error> {
        let body = complete(place, name, body);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        self.persist(&place.resource.kind, || {
            place.api.patch(name, &parameters, &patch)
        })
        .await
    }

    async fn apply_status(
        &self,
        place: &Place,
        name: &str,
        body: &Value,
    ) -> Result<DynamicObject, kube::Error> {
        let body = complete(place, name, body);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let kind = format!("{}/status", place.resource.kind);
        self.persist(&kind, || place.api.patch_status(name, &parameters, &patch))
            .await
    }

    async fn delete(&self, place: &Place, name: &str) -> Result<(), kube::Error> {
        let parameters = DeleteParams::default();
        let deleted = self
            .persist(&place.resource.kind, || place.api.delete(name, &parameters))
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tries until the API server has said yes or no, or has been silent for some time.
    async fn persist<T, F>(&self, kind: &str, request: impl Fn() -> F) -> Result<T, kube::Error>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut waits = WAITS.iter();
        loop {
            let error = match request().await {
                Ok(answer) => {
                    self.metrics.wrote(kind, WriteResult::Done);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match waits.next().filter(|_| !is_refusal(&error)) {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => {
                    self.metrics.wrote(kind, WriteResult::Failed);
                    return Err(error);
                }
            }
        }
    }

    fn place<K>(&self) -> Place
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        Place {
            api: Api::all_with(self.client.clone(), &resource),
            resource,
        }
    }

    fn place_in<K>(&self, namespace: &str) -> Place
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        Place {
            api: Api::namespaced_with(self.client.clone(), namespace, &resource),
            resource,
        }
    }
}

/// The API server has understood the request and does not carry it out.
fn is_refusal(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    (400..500).contains(&status.code) && !matches!(status.code, 408 | 409 | 429)
}

fn complete(place: &Place, name: &str, body: &Value) -> Value {
    let mut body = body.clone();
    body["apiVersion"] = json!(place.resource.api_version);
    body["kind"] = json!(place.resource.kind);
    body["metadata"]["name"] = json!(name);
    body
}
