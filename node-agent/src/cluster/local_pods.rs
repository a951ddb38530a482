//! The pods that are attached to this node, as the API and the node know them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_policy::snapshot::{Pod, PodId};

use super::Found;
use crate::cni::store::Attachment;
use crate::host_ports::{PodWithPorts, host_ports};
use crate::services::ServicePort;
use crate::watch::{Known, MIRROR_ANNOTATION};

/// What the API says of the pods that are attached. Another pod that has taken over the name is not the one meant.
pub(super) fn pods_of(attached: &BTreeMap<PodId, Attachment>, known: &Known) -> BTreeMap<PodId, Pod> {
    let is_meant = |attachment: &Attachment, pod: &k8s_openapi::api::core::v1::Pod| {
        let uid = &attachment.pod_uid;
        let mirrored = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(MIRROR_ANNOTATION));
        uid.is_empty() || pod.metadata.uid.as_ref() == Some(uid) || mirrored == Some(uid)
    };
    attached
        .iter()
        .filter_map(|(id, attachment)| {
            let pod = known
                .pods
                .objects
                .get(id)
                .filter(|pod| is_meant(attachment, pod))?;
            Some((id.clone(), Pod::from(&**pod)))
        })
        .collect()
}

/// The host ports of the pods that are attached.
pub(super) fn host_ports_of(
    attached: &BTreeMap<PodId, Attachment>,
    known: &Known,
    own_addresses: &BTreeSet<IpAddr>,
    found: &mut Found,
) -> Vec<ServicePort> {
    let with_ports = attached.iter().filter_map(|(id, attachment)| {
        Some(PodWithPorts {
            id,
            pod: known.pods.objects.get(id)?,
            addresses: &attachment.addresses,
        })
    });
    let (ports, problems) = host_ports(with_ports, own_addresses);
    for problem in problems {
        found.problems.add("Pod", "HostPort", problem.to_string(), true);
    }
    ports
}
