//! Which identities each selector selects, asked once for each distinct selector.

use std::collections::BTreeMap;

use crate::identity::IdentityKey;
use crate::model::{Namespaces, Peer, Peers, PodSelector, Policy};
use crate::resolved::IdentityNumber;

pub(super) struct Members<'a> {
    /// Sorted by key. Elsewhere an identity is known by its index here.
    identities: Vec<(&'a IdentityKey, IdentityNumber)>,
    members: BTreeMap<&'a PodSelector, Vec<usize>>,
}

impl<'a> Members<'a> {
    pub(super) fn new(
        policies: impl Iterator<Item = &'a Policy>,
        identities: &'a BTreeMap<IdentityKey, IdentityNumber>,
    ) -> Self {
        let identities: Vec<_> = identities.iter().map(|(key, &number)| (key, number)).collect();
        let mut namespaces = BTreeMap::<&str, Vec<usize>>::new();
        for (index, (key, _)) in identities.iter().enumerate() {
            namespaces.entry(&key.namespace).or_default().push(index);
        }
        let mut members = BTreeMap::new();
        for selector in policies.flat_map(peer_selectors) {
            members
                .entry(selector)
                .or_insert_with(|| match &selector.namespaces {
                    Namespaces::Named(name) => {
                        let candidates = namespaces.get(name.as_str()).into_iter().flatten().copied();
                        candidates
                            .filter(|&index| selector.matches(identities[index].0))
                            .collect()
                    }
                    Namespaces::Labelled(_) => (0..identities.len())
                        .filter(|&index| selector.matches(identities[index].0))
                        .collect(),
                });
        }
        Self { identities, members }
    }

    /// Indices of the identities that a selector of these policies selects.
    pub(super) fn of(&self, selector: &PodSelector) -> &[usize] {
        self.members.get(selector).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn identities(&self) -> &[(&'a IdentityKey, IdentityNumber)] {
        &self.identities
    }
}

fn peer_selectors(policy: &Policy) -> impl Iterator<Item = &PodSelector> {
    let rules = policy.ingress.rules.iter().chain(&policy.egress.rules);
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => [].as_slice(),
        Peers::Of(peers) => peers,
    });
    peers.filter_map(|peer| match peer {
        Peer::Pods(selector) => Some(selector),
        Peer::Network(_) => None,
    })
}
