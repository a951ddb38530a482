//! The slices of the address book: which namespace, pod and node stands in which.
//!
//! A place follows from names and from how many there are, never from what was there before.

use std::collections::{BTreeMap, BTreeSet};

use weir_api::address_slice::{AddressSliceSpec, NodeAddresses, PodAddresses};
use weir_api::identity_slice::NamespaceIdentities;
use weir_policy::identity::{IdentityKey, Relevance};
use weir_policy::snapshot::{Labels, PodId, Snapshot};

use super::numbers::identity;
use crate::cluster::Cluster;
use crate::digest::{Digest, digest_text};

/// How many IdentitySlices the namespaces are spread over.
const IDENTITY_SLICES: Digest = 64;

/// How many pods, or nodes, a slice holds before it is split.
const MOST_ADDRESSES: usize = 1000;

/// The identities, by slice. `namespace_labels` are the label keys that somebody looks at.
#[must_use]
pub(super) fn identity_slices(
    snapshot: &Snapshot,
    identities: &BTreeMap<&IdentityKey, u32>,
    namespace_labels: &BTreeSet<String>,
) -> BTreeMap<String, Vec<NamespaceIdentities>> {
    let mut namespaces = BTreeMap::<&str, NamespaceIdentities>::new();
    for (key, number) in identities {
        let namespace = namespaces
            .entry(&key.namespace)
            .or_insert_with(|| NamespaceIdentities {
                name: key.namespace.clone(),
                labels: labels(snapshot, &key.namespace, namespace_labels),
                identities: Vec::new(),
            });
        namespace.identities.push(identity(key, *number));
    }
    let mut slices = BTreeMap::<String, Vec<NamespaceIdentities>>::new();
    for (name, mut namespace) in namespaces {
        namespace.identities.sort_by_key(|identity| identity.number);
        let slice = format!("identities-{:02x}", digest_text(name) % IDENTITY_SLICES);
        slices.entry(slice).or_default().push(namespace);
    }
    slices
}

fn labels(snapshot: &Snapshot, namespace: &str, keys: &BTreeSet<String>) -> Labels {
    keys.iter()
        .filter_map(|key| Some((key.clone(), snapshot.namespace_label(namespace, key)?.to_owned())))
        .collect()
}

/// The label keys of namespaces that must be in the book.
#[must_use]
pub(super) fn namespace_labels<'a>(
    relevances: impl IntoIterator<Item = &'a Relevance>,
    flow_logs: &'a BTreeMap<String, weir_policy::lower::FlowLog>,
) -> BTreeSet<String> {
    let subjects = flow_logs.values().filter_map(|log| log.subject.as_ref());
    let of_logs = subjects.flat_map(|subject| match &subject.namespaces {
        weir_policy::model::Namespaces::Labelled(selector) => selector.keys().collect::<Vec<_>>(),
        weir_policy::model::Namespaces::Named(_) => Vec::new(),
    });
    let of_policies = relevances
        .into_iter()
        .flat_map(|relevance| &relevance.namespace_labels);
    of_policies.cloned().chain(of_logs.map(str::to_owned)).collect()
}

/// The addresses of pods and nodes, by slice. The slices' revisions are 0.
#[must_use]
pub(super) fn address_slices(
    cluster: &Cluster,
    pods: &BTreeMap<&PodId, u32>,
) -> BTreeMap<String, AddressSliceSpec> {
    let mut namespaces = BTreeMap::<&str, Vec<PodAddresses>>::new();
    for (id, number) in pods {
        let Some(pod) = cluster.snapshot.pods.get(*id) else {
            continue;
        };
        if pod.addresses.is_empty() || pod.node.is_empty() {
            continue;
        }
        namespaces.entry(&id.namespace).or_default().push(PodAddresses {
            name: id.name.clone(),
            node: pod.node.clone(),
            identity: *number,
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        });
    }
    let mut slices = BTreeMap::new();
    for (namespace, pods) in namespaces {
        // A namespace's name has no dot, so that no two namespaces' slices have the same name.
        for (name, pods) in split(format!("pods.{namespace}"), pods, |pod| &pod.name) {
            let spec = AddressSliceSpec {
                namespace: Some(namespace.to_owned()),
                pods,
                ..AddressSliceSpec::default()
            };
            slices.insert(name, spec);
        }
    }
    for (name, nodes) in split("nodes".to_owned(), nodes(cluster), |node| &node.name) {
        let spec = AddressSliceSpec {
            nodes,
            ..AddressSliceSpec::default()
        };
        slices.insert(name, spec);
    }
    slices
}

fn nodes(cluster: &Cluster) -> Vec<NodeAddresses> {
    let facts = |name: &str| cluster.nodes.get(name).map(|facts| facts.pod_cidrs.clone());
    let nodes = cluster.snapshot.nodes.iter().map(|(name, node)| NodeAddresses {
        name: name.clone(),
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        pod_cidrs: facts(name).unwrap_or_default(),
    });
    nodes.collect()
}

/// Halves the items by the bits of their names' digests until no part is too large. A part's name tells its bits, so
/// that an item moves only when the part that it was in goes: `pods.shop.01` becomes `pods.shop.010` and
/// `pods.shop.011`.
fn split<T>(root: String, items: Vec<T>, name: fn(&T) -> &String) -> BTreeMap<String, Vec<T>> {
    let mut parts = BTreeMap::new();
    let mut open = vec![(root, 0_u32, items)];
    while let Some((part, bits, items)) = open.pop() {
        if items.is_empty() {
            continue;
        }
        if items.len() <= MOST_ADDRESSES || bits == Digest::BITS {
            parts.insert(part, items);
            continue;
        }
        let bit = |item: &T| digest_text(name(item)) >> (Digest::BITS - 1 - bits) & 1 == 1;
        let (ones, zeros): (Vec<T>, Vec<T>) = items.into_iter().partition(bit);
        let separator = if bits == 0 { "." } else { "" };
        open.push((format!("{part}{separator}0"), bits + 1, zeros));
        open.push((format!("{part}{separator}1"), bits + 1, ones));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_complete_and_named_by_their_bits() {
        let names: Vec<String> = (0..5000).map(|index| format!("pod-{index}")).collect();
        let parts = split("pods.shop".to_owned(), names.clone(), |name| name);
        let mut found: Vec<String> = parts.values().flatten().cloned().collect();
        found.sort();
        let mut expected = names;
        expected.sort();
        assert_eq!(found, expected);
        assert!(parts.values().all(|part| part.len() <= MOST_ADDRESSES));
        for (one, other) in parts.keys().zip(parts.keys().skip(1)) {
            assert!(!other.starts_with(one.as_str()), "{one} holds what {other} holds");
        }
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        assert!(
            names.iter().all(|name| name.starts_with("pods.shop.")),
            "{names:?}"
        );
    }

    #[test]
    fn one_more_pod_touches_one_part_and_its_halves() {
        let names = |count: usize| {
            (0..count)
                .map(|index| format!("pod-{index}"))
                .collect::<Vec<String>>()
        };
        for count in [999, 1000, 1001, 2200, 4100] {
            let before = split("p".to_owned(), names(count), |name| name);
            let after = split("p".to_owned(), names(count + 1), |name| name);
            let touched = after
                .iter()
                .filter(|(name, part)| before.get(*name) != Some(part));
            assert!(touched.count() <= 2, "{count}");
        }
    }
}
