//! What was written, in a form in which the way there does not show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weir_api::identity_slice::HEAD;
use weir_operator::plan::book;
use weir_policy::identity::IdentityKey;

use crate::simulation::Simulation;

/// Everything that was written, with identities by their keys, and without revisions.
#[derive(Debug, PartialEq)]
pub(crate) struct View {
    namespaces: BTreeMap<String, NamespaceView>,
    addresses: BTreeMap<String, Vec<PodView>>,
    nodes: BTreeMap<String, (Value, BTreeSet<IdentityKey>)>,
}

/// The slice, the labels and the identities.
type NamespaceView = (String, BTreeMap<String, String>, BTreeSet<IdentityKey>);

/// The name, the node, the identity and the addresses.
type PodView = (String, String, IdentityKey, Vec<String>);

pub(crate) fn settled_view(simulation: &Simulation) -> View {
    let keys: BTreeMap<u32, IdentityKey> = simulation
        .identities()
        .into_iter()
        .map(|(key, number)| (number, key))
        .collect();
    let mut namespaces = BTreeMap::new();
    for (name, slice) in &simulation.existing.identity_slices {
        for namespace in &slice.spec.namespaces {
            let identities = book([namespace]).into_keys().collect();
            let entry = (name.clone(), namespace.labels.clone(), identities);
            assert_eq!(
                namespaces.insert(namespace.name.clone(), entry),
                None,
                "a namespace is in one slice"
            );
        }
    }
    let mut addresses = BTreeMap::new();
    for (name, slice) in simulation
        .existing
        .address_slices
        .iter()
        .filter(|(name, _)| *name != HEAD)
    {
        let pods = slice.spec.pods.iter().map(|pod| {
            (
                pod.name.clone(),
                pod.node.clone(),
                keys[&pod.identity].clone(),
                pod.addresses.clone(),
            )
        });
        addresses.insert(name.clone(), pods.collect());
    }
    let nodes = simulation.specs.iter().map(|(name, spec)| {
        let mut spec = spec.clone();
        let covers: Vec<u32> = serde_json::from_value(spec["covers"].take()).unwrap();
        spec["addressBook"].take();
        (
            name.clone(),
            (spec, covers.iter().map(|number| keys[number].clone()).collect()),
        )
    });
    View {
        nodes: nodes.collect(),
        namespaces,
        addresses,
    }
}
