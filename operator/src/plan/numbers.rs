//! The numbers of identities: stable, and as seldom given twice as can be.

use std::collections::{BTreeMap, BTreeSet};

use weir_api::identity_slice::{Identity, NamespaceIdentities};
use weir_policy::identity::{IdentityKey, NamedPorts};
use weir_policy::model::Protocol;

use crate::existing::Existing;

/// Agents use numbers from here on for their own ends.
pub const FIRST_NUMBER_OF_AGENTS: u32 = 1 << 30;

/// Which identity has which number.
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    existing: &'a BTreeMap<IdentityKey, u32>,
    new: BTreeMap<IdentityKey, u32>,
    /// The last number that was given.
    pub(super) last: u32,
}

/// The identities that the slices hold. Of two numbers of one identity the lower counts.
#[must_use]
pub(super) fn existing_numbers(existing: &Existing) -> BTreeMap<IdentityKey, u32> {
    let mut numbers = BTreeMap::new();
    for slice in existing.identity_slices.values() {
        for namespace in &slice.spec.namespaces {
            for identity in &namespace.identities {
                let known = numbers
                    .entry(key(&namespace.name, identity))
                    .or_insert(identity.number);
                *known = identity.number.min(*known);
            }
        }
    }
    numbers
}

impl<'a> Numbers<'a> {
    /// Numbers those of `keys` that have none, in their order.
    pub(super) fn assign<'k>(
        known: &'a BTreeMap<IdentityKey, u32>,
        existing: &Existing,
        keys: impl IntoIterator<Item = &'k IdentityKey>,
    ) -> Self {
        let heads = existing.identity_slices.values();
        let last = heads
            .filter_map(|slice| slice.spec.last_number)
            .max()
            .unwrap_or_default();
        let mut numbers = Self {
            existing: known,
            new: BTreeMap::new(),
            last: last.max(known.values().copied().max().unwrap_or_default()),
        };
        let mut in_use: Option<BTreeSet<u32>> = None;
        for key in keys {
            if numbers.get(key).is_none() {
                let in_use = in_use.get_or_insert_with(|| numbers_in_use(known, existing));
                let number = next(numbers.last, in_use);
                in_use.insert(number);
                numbers.last = number;
                numbers.new.insert(key.clone(), number);
            }
        }
        numbers
    }

    pub(super) fn get(&self, key: &IdentityKey) -> Option<u32> {
        self.existing.get(key).or_else(|| self.new.get(key)).copied()
    }

    pub(super) fn get_existing(&self, key: &IdentityKey) -> Option<(&'a IdentityKey, u32)> {
        let (key, number) = self.existing.get_key_value(key)?;
        Some((key, *number))
    }

    pub(super) fn existing(&self) -> impl Iterator<Item = (&'a IdentityKey, u32)> + use<'a> {
        self.existing.iter().map(|(key, number)| (key, *number))
    }
}

/// Numbers that an identity, an address or a node's spec names.
fn numbers_in_use(known: &BTreeMap<IdentityKey, u32>, existing: &Existing) -> BTreeSet<u32> {
    let addresses = existing
        .address_slices
        .values()
        .flat_map(|slice| slice.spec.pods.iter().map(|pod| pod.identity));
    let covers = existing
        .nodes
        .values()
        .flat_map(|node| node.current.contents.covers.iter().copied());
    known.values().copied().chain(addresses).chain(covers).collect()
}

/// The first number after `last` that is free, starting anew at 1 behind the last of all.
fn next(last: u32, in_use: &BTreeSet<u32>) -> u32 {
    let after = (last.saturating_add(1)..FIRST_NUMBER_OF_AGENTS).chain(1..FIRST_NUMBER_OF_AGENTS);
    after
        .into_iter()
        .find(|number| !in_use.contains(number))
        .unwrap_or(FIRST_NUMBER_OF_AGENTS - 1)
}

/// The identity of a slice as a key.
#[must_use]
pub(super) fn key(namespace: &str, identity: &Identity) -> IdentityKey {
    let ports = |texts: &BTreeSet<String>| texts.iter().filter_map(|text| parse_port(text)).collect();
    let named_ports: NamedPorts = identity
        .named_ports
        .iter()
        .map(|(name, texts)| (name.clone(), ports(texts)))
        .collect();
    IdentityKey {
        namespace: namespace.to_owned(),
        pod_labels: identity.pod_labels.clone(),
        namespace_labels: identity.namespace_labels.clone(),
        named_ports,
    }
}

/// A key as an identity of a slice.
#[must_use]
pub(super) fn identity(key: &IdentityKey, number: u32) -> Identity {
    let texts = |ports: &BTreeSet<(Protocol, u16)>| {
        ports
            .iter()
            .map(|(protocol, port)| format!("{protocol}/{port}"))
            .collect()
    };
    Identity {
        number,
        pod_labels: key.pod_labels.clone(),
        namespace_labels: key.namespace_labels.clone(),
        named_ports: key
            .named_ports
            .iter()
            .map(|(name, ports)| (name.clone(), texts(ports)))
            .collect(),
    }
}

fn parse_port(text: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = text.split_once('/')?;
    Some((Protocol::parse(protocol)?, port.parse().ok()?))
}

/// The identities that slices hold, by key.
#[must_use]
pub fn book<'a>(namespaces: impl IntoIterator<Item = &'a NamespaceIdentities>) -> BTreeMap<IdentityKey, u32> {
    namespaces
        .into_iter()
        .flat_map(|namespace| {
            namespace
                .identities
                .iter()
                .map(|identity| (key(&namespace.name, identity), identity.number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use weir_api::IdentitySliceSpec;

    use super::*;
    use crate::existing::Slice;

    fn labelled(value: &str) -> IdentityKey {
        IdentityKey {
            namespace: "shop".to_owned(),
            pod_labels: BTreeMap::from([("app".to_owned(), value.to_owned())]),
            namespace_labels: BTreeMap::new(),
            named_ports: NamedPorts::from([(
                "http".to_owned(),
                BTreeSet::from([(Protocol::Tcp, 80), (Protocol::Udp, 53)]),
            )]),
        }
    }

    fn existing(last_number: u32, identities: &[(&str, u32)]) -> Existing {
        let identities = identities
            .iter()
            .map(|(value, number)| identity(&labelled(value), *number));
        let spec = IdentitySliceSpec {
            revision: 1,
            last_number: Some(last_number),
            namespaces: vec![NamespaceIdentities {
                name: "shop".to_owned(),
                identities: identities.collect(),
                ..NamespaceIdentities::default()
            }],
        };
        let slice = Slice {
            spec,
            ..Slice::default()
        };
        Existing {
            identity_slices: BTreeMap::from([("identities-00".to_owned(), slice)]),
            ..Existing::default()
        }
    }

    #[test]
    fn keys_survive_a_slice() {
        assert_eq!(key("shop", &identity(&labelled("x"), 7)), labelled("x"));
    }

    #[test]
    fn numbers_go_up_and_stay() {
        let existing = existing(9, &[("x", 4)]);
        let known = existing_numbers(&existing);
        let keys = [labelled("x"), labelled("y"), labelled("z")];
        let numbers = Numbers::assign(&known, &existing, &keys);
        let given: Vec<Option<u32>> = keys.iter().map(|key| numbers.get(key)).collect();
        assert_eq!((given, numbers.last), (vec![Some(4), Some(10), Some(11)], 11));
    }

    #[test]
    fn after_the_last_number_come_the_free_ones() {
        let last = FIRST_NUMBER_OF_AGENTS - 1;
        let existing = existing(last, &[("x", 1), ("w", 2)]);
        let known = existing_numbers(&existing);
        let numbers = Numbers::assign(&known, &existing, &[labelled("y")]);
        assert_eq!(numbers.get(&labelled("y")), Some(3));
    }
}
