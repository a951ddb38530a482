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
use crate::digest::{Digest, digest, digest_text};

/// How many IdentitySlices the namespaces are spread over.
const IDENTITY_SLICES: Digest = 64;

/// How many bytes of JSON the identities of a slice come to, nearly, before it is split. An API server takes three times
/// as much.
const MOST_IDENTITY_BYTES: usize = 512 * 1024;

/// How many pods, or nodes, a slice holds before it is split.
const MOST_ADDRESSES: usize = 1000;

/// The identities, by slice. `namespace_labels` are the label keys that somebody looks at.
#[must_use]
pub(super) fn identity_slices(
    snapshot: &Snapshot,
    identities: &BTreeMap<&IdentityKey, u32>,
    namespace_labels: &BTreeSet<String>,
) -> BTreeMap<String, Vec<NamespaceIdentities>> {
    let mut groups = BTreeMap::<Digest, Vec<(&IdentityKey, u32)>>::new();
    for (key, number) in identities {
        let group = digest_text(&key.namespace) % IDENTITY_SLICES;
        groups.entry(group).or_default().push((key, *number));
    }
    let mut slices = BTreeMap::new();
    for (group, identities) in groups {
        let root = format!("identities-{group:02x}");
        let parts = split(
            root,
            identities,
            MOST_IDENTITY_BYTES,
            identity_bytes,
            |(key, _)| {
                // A key is made of texts, numbers and maps: it always is JSON.
                digest(&serde_json::to_value(key).unwrap_or_default())
            },
        );
        for (name, identities) in parts {
            slices.insert(name, by_namespace(snapshot, identities, namespace_labels));
        }
    }
    slices
}

fn by_namespace(
    snapshot: &Snapshot,
    identities: Vec<(&IdentityKey, u32)>,
    namespace_labels: &BTreeSet<String>,
) -> Vec<NamespaceIdentities> {
    let mut namespaces = BTreeMap::<&str, NamespaceIdentities>::new();
    for (key, number) in identities {
        let namespace = namespaces
            .entry(&key.namespace)
            .or_insert_with(|| NamespaceIdentities {
                name: key.namespace.clone(),
                labels: labels(snapshot, &key.namespace, namespace_labels),
                identities: Vec::new(),
            });
        namespace.identities.push(identity(key, number));
    }
    let mut namespaces: Vec<NamespaceIdentities> = namespaces.into_values().collect();
    for namespace in &mut namespaces {
        namespace.identities.sort_by_key(|identity| identity.number);
    }
    namespaces
}

/// Of its JSON, nearly.
fn identity_bytes((key, _): &(&IdentityKey, u32)) -> usize {
    let labels = key.pod_labels.iter().chain(&key.namespace_labels);
    let labels: usize = labels.map(|(name, value)| name.len() + value.len() + 6).sum();
    let ports = key.named_ports.iter();
    let ports: usize = ports.map(|(name, ports)| name.len() + 6 + 13 * ports.len()).sum();
    80 + labels + ports
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
        let parts = split(
            format!("pods.{namespace}"),
            pods,
            MOST_ADDRESSES,
            |_| 1,
            |pod| digest_text(&pod.name),
        );
        for (name, pods) in parts {
            let spec = AddressSliceSpec {
                namespace: Some(namespace.to_owned()),
                pods,
                ..AddressSliceSpec::default()
            };
            slices.insert(name, spec);
        }
    }
    let parts = split(
        "nodes".to_owned(),
        nodes(cluster),
        MOST_ADDRESSES,
        |_| 1,
        |node| digest_text(&node.name),
    );
    for (name, nodes) in parts {
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

/// Halves the items by the bits of their digests until no part weighs more than `most`. A part's name tells its bits,
/// so that an item moves only when the part that it was in goes: `pods.shop.01` becomes `pods.shop.010` and
/// `pods.shop.011`.
fn split<T>(
    root: String,
    items: Vec<T>,
    most: usize,
    weight: fn(&T) -> usize,
    digest: fn(&T) -> Digest,
) -> BTreeMap<String, Vec<T>> {
    let mut parts = BTreeMap::new();
    let mut open = vec![(root, 0_u32, items)];
    while let Some((part, bits, items)) = open.pop() {
        if items.is_empty() {
            continue;
        }
        if items.len() == 1 || items.iter().map(weight).sum::<usize>() <= most || bits == Digest::BITS {
            parts.insert(part, items);
            continue;
        }
        let bit = |item: &T| digest(item) >> (Digest::BITS - 1 - bits) & 1 == 1;
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

    fn split_names(root: &str, names: Vec<String>) -> BTreeMap<String, Vec<String>> {
        split(
            root.to_owned(),
            names,
            MOST_ADDRESSES,
            |_| 1,
            |name| digest_text(name),
        )
    }

    #[test]
    fn parts_are_small_complete_and_named_by_their_bits() {
        let names: Vec<String> = (0..5000).map(|index| format!("pod-{index}")).collect();
        let parts = split_names("pods.shop", names.clone());
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

    /// As where a policy looks at the label that gives each pod of a StatefulSet its own value.
    #[test]
    fn a_namespace_of_many_identities_is_in_several_slices() {
        let key = |index: usize| IdentityKey {
            namespace: "shop".to_owned(),
            pod_labels: Labels::from([(
                "statefulset.kubernetes.io/pod-name".to_owned(),
                format!("database-of-the-shop-{index}"),
            )]),
            namespace_labels: Labels::from([("team".to_owned(), "blue".to_owned())]),
            named_ports: Default::default(),
        };
        let keys: Vec<IdentityKey> = (0..20_000).map(key).collect();
        let identities: BTreeMap<&IdentityKey, u32> = keys.iter().zip(1..).collect();
        let mut snapshot = Snapshot::default();
        let team = Labels::from([("team".to_owned(), "blue".to_owned())]);
        snapshot.namespaces.insert("shop".to_owned(), team.clone());
        let slices = identity_slices(&snapshot, &identities, &BTreeSet::from(["team".to_owned()]));
        let mut numbers = BTreeSet::new();
        for namespaces in slices.values() {
            let json = serde_json::to_string(namespaces).expect("it is JSON");
            let estimated: usize = namespaces[0]
                .identities
                .iter()
                .map(|identity| identity_bytes(&(&keys[identity.number as usize - 1], identity.number)))
                .sum();
            assert!(
                estimated <= MOST_IDENTITY_BYTES && json.len() <= estimated + 100,
                "{} bytes, and {estimated} were expected",
                json.len()
            );
            assert_eq!((namespaces.len(), &namespaces[0].labels), (1, &team));
            numbers.extend(namespaces[0].identities.iter().map(|identity| identity.number));
        }
        assert!(slices.len() > 4, "{:?}", slices.keys());
        assert_eq!(numbers, (1..=20_000).collect());
    }

    #[test]
    fn one_more_pod_touches_one_part_and_its_halves() {
        let names = |count: usize| {
            (0..count)
                .map(|index| format!("pod-{index}"))
                .collect::<Vec<String>>()
        };
        for count in [999, 1000, 1001, 2200, 4100] {
            let before = split_names("p", names(count));
            let after = split_names("p", names(count + 1));
            let touched = after
                .iter()
                .filter(|(name, part)| before.get(*name) != Some(part));
            assert!(touched.count() <= 2, "{count}");
        }
    }
}
