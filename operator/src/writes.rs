//! What has to be written so that what exists becomes what is wanted, in the order in which it may be written.
//!
//! 1. Identities, then addresses: new before old.
//! 2. The heads of both, where some node is about to rely on something that is newer than they are.
//! 3. The nodes.
//!
//! A stage starts when all of the one before it has been written. To stop after any write is safe: an address carries an
//! identity that every node's policies can tell apart, and a node that relies on more waits for the heads.

use std::collections::{BTreeMap, BTreeSet};

use weir_api::identity_slice::HEAD;
use weir_api::{AddressSliceSpec, IdentitySliceSpec};

use crate::cluster::Cluster;
use crate::digest::Digest;
use crate::existing::{Contents, Existing};
use crate::plan::Wanted;

/// The writes of one round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Writes {
    pub identity_slices: BTreeMap<String, IdentitySliceSpec>,
    pub address_slices: BTreeMap<String, AddressSliceSpec>,
    /// Slices whose pods or nodes are in other slices, or gone.
    pub stale_address_slices: Vec<String>,
    pub stale_identity_slices: Vec<String>,
    pub identity_head: Option<IdentitySliceSpec>,
    pub address_head: Option<AddressSliceSpec>,
    /// The nodes to write.
    pub nodes: Vec<String>,
    /// The revision that these nodes rely on.
    pub address_book: i64,
    /// Nodes that can wait: all that changes is that they lose what has become superfluous.
    pub patient: Vec<String>,
}

impl Writes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.touches_no_book() && self.nodes.is_empty() && self.patient.is_empty()
    }

    #[must_use]
    pub fn touches_no_book(&self) -> bool {
        self.identity_slices.is_empty()
            && self.address_slices.is_empty()
            && self.stale_address_slices.is_empty()
            && self.stale_identity_slices.is_empty()
            && self.identity_head.is_none()
            && self.address_head.is_none()
    }
}

/// Compares what is wanted with what exists.
#[must_use]
pub fn writes(cluster: &Cluster, wanted: &Wanted, existing: &Existing) -> Writes {
    let revision = existing.last_revision() + 1;
    let (head, heads_agree) = existing.head();
    let mut writes = Writes {
        identity_slices: changed_identities(wanted, existing, revision),
        address_slices: changed_addresses(wanted, existing, revision),
        stale_identity_slices: stale(&existing.identity_slices, &wanted.identity_slices),
        stale_address_slices: stale(&existing.address_slices, &wanted.address_slices),
        ..Writes::default()
    };
    (writes.nodes, writes.patient) = changed_nodes(cluster, wanted, existing);
    let newer = |revision: i64| revision > head;
    let unseen = !writes.identity_slices.is_empty()
        || !writes.address_slices.is_empty()
        || existing
            .identity_slices
            .values()
            .any(|slice| newer(slice.spec.revision))
        || existing
            .address_slices
            .values()
            .any(|slice| newer(slice.spec.revision));
    let moves = !writes.nodes.is_empty() && (unseen || !heads_agree);
    let known_last = existing
        .identity_slices
        .get(HEAD)
        .and_then(|slice| slice.spec.last_number);
    let knows_last = known_last.unwrap_or_default() >= wanted.last_number;
    if moves || !knows_last {
        writes.identity_head = Some(IdentitySliceSpec {
            revision: if moves {
                revision
            } else {
                identity_head_revision(existing)
            },
            last_number: Some(wanted.last_number.max(known_last.unwrap_or_default())),
            namespaces: Vec::new(),
        });
    }
    if moves {
        writes.address_head = Some(AddressSliceSpec {
            revision,
            ..AddressSliceSpec::default()
        });
    }
    writes.address_book = if moves { revision } else { head };
    writes
}

fn identity_head_revision(existing: &Existing) -> i64 {
    let head = existing.identity_slices.get(HEAD);
    head.map(|slice| slice.spec.revision).unwrap_or_default()
}

fn changed_identities(
    wanted: &Wanted,
    existing: &Existing,
    revision: i64,
) -> BTreeMap<String, IdentitySliceSpec> {
    let changed = wanted.identity_slices.iter().filter(|(name, namespaces)| {
        let known = existing.identity_slices.get(*name);
        known.is_none_or(|slice| slice.spec.namespaces != **namespaces)
    });
    let specs = changed.map(|(name, namespaces)| {
        let spec = IdentitySliceSpec {
            revision,
            last_number: None,
            namespaces: namespaces.clone(),
        };
        (name.clone(), spec)
    });
    specs.collect()
}

fn changed_addresses(
    wanted: &Wanted,
    existing: &Existing,
    revision: i64,
) -> BTreeMap<String, AddressSliceSpec> {
    let changed = wanted.address_slices.iter().filter(|(name, wanted)| {
        let known = existing.address_slices.get(*name).map(|slice| &slice.spec);
        known.is_none_or(|known| {
            known.namespace != wanted.namespace || known.pods != wanted.pods || known.nodes != wanted.nodes
        })
    });
    let specs = changed.map(|(name, wanted)| {
        let spec = AddressSliceSpec {
            revision,
            ..wanted.clone()
        };
        (name.clone(), spec)
    });
    specs.collect()
}

fn stale<S, W>(existing: &BTreeMap<String, S>, wanted: &BTreeMap<String, W>) -> Vec<String> {
    let names = existing
        .keys()
        .filter(|name| *name != HEAD && !wanted.contains_key(*name));
    names.cloned().collect()
}

/// The nodes to write at once, and those that can wait.
fn changed_nodes(cluster: &Cluster, wanted: &Wanted, existing: &Existing) -> (Vec<String>, Vec<String>) {
    let (mut at_once, mut patient) = (Vec::new(), Vec::new());
    let policies: BTreeSet<Digest> = wanted.policies.values().map(|policy| policy.digest).collect();
    for (name, node) in &wanted.nodes {
        if node.is_too_large() {
            continue;
        }
        let owner = cluster.nodes.get(name).map(|facts| facts.uid.as_str());
        let Some(known) = existing.nodes.get(name) else {
            at_once.push(name.clone());
            continue;
        };
        if known.owner.as_deref() != owner || known.attempted.is_some() {
            at_once.push(name.clone());
        } else if known.current.contents != node.contents {
            let loses = only_loses(&known.current.contents, &node.contents, &policies);
            if loses { &mut patient } else { &mut at_once }.push(name.clone());
        }
    }
    (at_once, patient)
}

/// Whether all that a node has too much is identities of pods that left it, and policies that only these needed.
fn only_loses(current: &Contents, wanted: &Contents, policies: &BTreeSet<Digest>) -> bool {
    let superfluous = || current.policies.difference(&wanted.policies);
    current.relevance == wanted.relevance
        && current.flow_logs == wanted.flow_logs
        && current.settings == wanted.settings
        && current.covers.is_superset(&wanted.covers)
        && current.policies.is_superset(&wanted.policies)
        && superfluous().all(|digest| policies.contains(digest))
}
