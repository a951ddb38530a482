//! The API server, as whoever fills it and looks at it sees it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Config};
use serde_json::Value;

pub(super) const SYSTEM: &str = "weir-system";

pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).context("the API server's kubeconfig")?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Any kind, as JSON.
pub(super) fn any<K: kube::Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

/// Any kind in a namespace, as JSON.
pub(super) fn any_in<K: kube::Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

pub(super) async fn create(api: &Api<DynamicObject>, object: Value) -> Result<()> {
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// By merge patch, so that what the operator applies can be told from it in the API server's counters.
pub(super) async fn set_status(api: &Api<DynamicObject>, name: &str, status: &Value) -> Result<()> {
    let patch = serde_json::json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

pub(super) fn namespaces(client: &Client) -> Api<DynamicObject> {
    any::<Namespace>(client)
}

pub(super) fn nodes(client: &Client) -> Api<DynamicObject> {
    any::<Node>(client)
}

/// How many requests of the operator that write the API server has counted, by resource. Nobody else applies; events
/// and deletions of slices are the operator's too.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Writes(BTreeMap<String, u64>);

impl Writes {
    pub(super) async fn counted(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client
            .request_text(request)
            .await
            .context("the API server's metrics")?;
        Ok(Self::read(&text))
    }

    fn read(metrics: &str) -> Self {
        let mut writes = BTreeMap::new();
        for line in metrics.lines() {
            let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
                continue;
            };
            let Some((labels, value)) = rest.rsplit_once("} ") else {
                continue;
            };
            if let Some(resource) = written(labels) {
                *writes.entry(resource).or_default() += value.parse::<f64>().unwrap_or_default() as u64;
            }
        }
        Self(writes)
    }

    pub(super) fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let of = |resource: &str| before.0.get(resource).copied().unwrap_or_default();
        let changes = self
            .0
            .iter()
            .map(|(resource, count)| (resource.clone(), count - of(resource)));
        changes.filter(|(_, count)| *count > 0).collect()
    }
}

/// The resource, if the labels are those of a request of the operator that writes.
fn written(labels: &str) -> Option<String> {
    let label = |name: &str| {
        let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
        labels[start..].split('"').next()
    };
    let (verb, resource) = (label("verb")?, label("resource")?);
    let is_operators = match resource {
        "events" => matches!(verb, "POST" | "PATCH"),
        "identityslices" | "addressslices" => matches!(verb, "APPLY" | "DELETE"),
        _ => verb == "APPLY",
    };
    if !is_operators {
        return None;
    }
    match label("subresource")? {
        "" => Some(resource.to_owned()),
        subresource => Some(format!("{resource}/{subresource}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_writes_are_told_from_others() {
        let metrics = r#"
apiserver_request_total{code="200",component="apiserver",dry_run="",group="dataplane.weir.dev",resource="nodedataplanes",scope="resource",subresource="",verb="APPLY",version="v1alpha1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="dataplane.weir.dev",resource="nodedataplanes",scope="resource",subresource="",verb="APPLY",version="v1alpha1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="dataplane.weir.dev",resource="nodedataplanes",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 9
apiserver_request_total{code="200",component="apiserver",dry_run="",group="dataplane.weir.dev",resource="policystatuses",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 4
apiserver_request_total{code="200",component="apiserver",dry_run="",group="dataplane.weir.dev",resource="addressslices",scope="resource",subresource="",verb="DELETE",version="v1alpha1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="DELETE",version="v1"} 1
"#;
        let writes = Writes::read(metrics).since(&Writes::default());
        let expected = [
            ("addressslices", 1),
            ("nodedataplanes", 10),
            ("policystatuses/status", 4),
        ];
        let expected = expected.map(|(resource, count)| (resource.to_owned(), count));
        assert_eq!(writes, BTreeMap::from(expected));
    }
}
