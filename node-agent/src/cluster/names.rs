//! Who has which address in a cluster, for the flow log.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use weir_policy::snapshot::PodId;

use crate::address_book::AddressBook;
use crate::cni::store::Attachment;
use crate::flow::names::{Endpoint, PodName, Workload};
use crate::watch::Known;

/// Workloads are known of this node's own pods only.
pub(crate) fn endpoints(
    node: &str,
    book: &AddressBook,
    known: &Known,
    attached: &BTreeMap<PodId, Attachment>,
) -> BTreeMap<IpAddr, Endpoint> {
    let pod = |id: &PodId, node: &str, workload| {
        Endpoint::Pod(PodName {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            workload,
            node_name: Some(node.to_owned()),
        })
    };
    let mut endpoints = BTreeMap::new();
    for (id, entry) in book.pods.iter().filter(|(_, entry)| entry.node != node) {
        for address in &entry.addresses {
            endpoints.insert(*address, pod(id, &entry.node, None));
        }
    }
    for (id, attachment) in attached {
        let workload = known.pods.objects.get(id).and_then(|pod| workload(pod));
        for address in &attachment.addresses {
            endpoints.insert(*address, pod(id, node, workload.clone()));
        }
    }
    for (name, entry) in &book.nodes {
        for address in &entry.addresses {
            endpoints.insert(*address, Endpoint::Node { name: name.clone() });
        }
    }
    endpoints
}

fn workload(pod: &Pod) -> Option<Workload> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Workload {
        kind: controller.kind.clone(),
        name: controller.name.clone(),
    })
}
