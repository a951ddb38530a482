//! The address book, put together from its slices: which identities there are, and whose an address is.
//!
//! What cannot be read is left out and told. The two kinds of slices are watched apart, so one may be ahead of the
//! other: a pod whose identity is not there yet keeps the one that it had, and an identity that some address still
//! carries stays. A rule against a pod is so never passed by because its number stands for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weir_api::identity_slice::{HEAD, Identity, NamespaceIdentities};
use weir_api::{AddressSliceSpec, IdentitySliceSpec};
use weir_policy::identity::{IdentityKey, NamedPorts};
use weir_policy::model::Protocol;
use weir_policy::resolved::IdentityNumber;
use weir_policy::snapshot::{Labels, PodId};

use crate::numbers::{Digest, FIRST_PASSING_IDENTITY};
use crate::plan::identity_digest;
use crate::services::special;

/// By name.
pub type IdentitySlices = BTreeMap<String, Arc<IdentitySliceSpec>>;
/// By name.
pub type AddressSlices = BTreeMap<String, Arc<AddressSliceSpec>>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressBook {
    pub identities: Arc<Identities>,
    pub pods: BTreeMap<PodId, PodEntry>,
    pub nodes: BTreeMap<String, NodeEntry>,
    /// Everything that was written up to this revision is in the book. `None` before the first heads.
    pub revision: Option<i64>,
    /// Sorted.
    pub problems: Vec<BookProblem>,
}

/// The half that the IdentitySlices hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Where two numbers stand for one identity, the smaller.
    pub numbers: BTreeMap<IdentityKey, IdentityNumber>,
    /// Every number that is in a slice.
    pub keys: BTreeMap<IdentityNumber, Arc<IdentityKey>>,
    pub digests: BTreeMap<Digest, IdentityNumber>,
    /// Of the namespaces' labels those that somebody looks at.
    pub namespaces: BTreeMap<String, Labels>,
    pub revision: Option<i64>,
    pub problems: Vec<BookProblem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEntry {
    pub node: String,
    pub identity: IdentityNumber,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeEntry {
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

/// Something in a slice that is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{kind} {slice}: {field}: {message}")]
pub struct BookProblem {
    pub kind: &'static str,
    pub slice: String,
    /// Like `spec.pods[3].addresses[0]`.
    pub field: String,
    pub message: String,
}

impl Identities {
    /// Reads the slices. `before` says what is known of numbers that no slice has any more but `in_use` names.
    #[must_use]
    pub fn new(slices: &IdentitySlices, before: &Self, in_use: &BTreeSet<IdentityNumber>) -> Self {
        let mut this = Self {
            revision: slices.get(HEAD).map(|head| head.revision),
            ..Self::default()
        };
        // Where a namespace is in two slices, it is moving: the later one counts.
        let mut ordered: Vec<_> = slices.iter().collect();
        ordered.sort_by_key(|(name, slice)| (slice.revision, *name));
        for (name, slice) in ordered {
            for (index, namespace) in slice.namespaces.iter().enumerate() {
                this.add(name, &format!("spec.namespaces[{index}]"), namespace);
            }
        }
        for number in in_use {
            if let Some(key) = before.keys.get(number) {
                this.keys.entry(*number).or_insert_with(|| Arc::clone(key));
            }
        }
        for (number, key) in &this.keys {
            this.numbers.entry((**key).clone()).or_insert(*number);
        }
        this.digests = this
            .numbers
            .iter()
            .map(|(key, number)| (identity_digest(key), *number))
            .collect();
        this.problems.sort();
        this
    }

    /// The number by which an identity is known, of all that it may have.
    #[must_use]
    pub fn canonical(&self, number: IdentityNumber) -> Option<IdentityNumber> {
        self.numbers.get(&**self.keys.get(&number)?).copied()
    }

    fn add(&mut self, slice: &str, field: &str, namespace: &NamespaceIdentities) {
        self.namespaces
            .insert(namespace.name.clone(), namespace.labels.clone());
        for (index, identity) in namespace.identities.iter().enumerate() {
            match key(&namespace.name, identity) {
                Ok(key) => {
                    self.keys.insert(identity.number, Arc::new(key));
                }
                Err(message) => self.problems.push(BookProblem {
                    kind: "IdentitySlice",
                    slice: slice.to_owned(),
                    field: format!("{field}.identities[{index}]"),
                    message,
                }),
            }
        }
    }
}

fn key(namespace: &str, identity: &Identity) -> Result<IdentityKey, String> {
    let number = identity.number;
    if number == 0 || number >= FIRST_PASSING_IDENTITY {
        return Err(format!(
            "{number} is no number of an identity: they go from 1 to {}; the identity is left out",
            FIRST_PASSING_IDENTITY - 1
        ));
    }
    let mut named_ports = NamedPorts::new();
    for (name, ports) in &identity.named_ports {
        let ports: Option<_> = ports.iter().map(|text| port(text)).collect();
        let ports = ports.ok_or_else(|| {
            format!("a port named {name:?} is not like TCP/8080; identity {number} is left out")
        })?;
        named_ports.insert(name.clone(), ports);
    }
    Ok(IdentityKey {
        namespace: namespace.to_owned(),
        pod_labels: identity.pod_labels.clone(),
        namespace_labels: identity.namespace_labels.clone(),
        named_ports,
    })
}

fn port(text: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = text.split_once('/')?;
    Some((
        Protocol::parse(protocol)?,
        port.parse().ok().filter(|port| *port != 0)?,
    ))
}

/// Puts the book together. `before` is what the agent knew.
///
/// A pod that is in two slices is moving between them: the one that was written last counts.
#[must_use]
pub fn address_book(
    identity_slices: &IdentitySlices,
    address_slices: &AddressSlices,
    before: &AddressBook,
) -> AddressBook {
    let identities = identities(identity_slices, address_slices, before);
    let mut reader = Reader {
        problems: identities.problems.clone(),
        pods: BTreeMap::new(),
        nodes: BTreeMap::new(),
        before,
        identities: &identities,
    };
    let mut ordered: Vec<_> = address_slices.iter().collect();
    ordered.sort_by_key(|(name, slice)| (slice.revision, *name));
    for (name, slice) in ordered {
        reader.read(name, slice);
    }
    let Reader {
        mut problems,
        pods,
        nodes,
        ..
    } = reader;
    problems.sort();
    let head = address_slices.get(HEAD).map(|head| head.revision);
    AddressBook {
        revision: identities
            .revision
            .zip(head)
            .map(|(identities, addresses)| identities.min(addresses)),
        pods,
        nodes,
        problems,
        identities: Arc::new(identities),
    }
}

fn identities(slices: &IdentitySlices, addresses: &AddressSlices, before: &AddressBook) -> Identities {
    let carried = addresses
        .values()
        .flat_map(|slice| &slice.pods)
        .map(|pod| pod.identity);
    let kept = before.pods.values().map(|pod| pod.identity);
    Identities::new(slices, &before.identities, &carried.chain(kept).collect())
}

struct Reader<'a> {
    before: &'a AddressBook,
    identities: &'a Identities,
    pods: BTreeMap<PodId, PodEntry>,
    nodes: BTreeMap<String, NodeEntry>,
    problems: Vec<BookProblem>,
}

impl Reader<'_> {
    fn read(&mut self, name: &str, slice: &AddressSliceSpec) {
        match &slice.namespace {
            Some(namespace) => {
                for (index, pod) in slice.pods.iter().enumerate() {
                    let id = PodId::new(namespace, &pod.name);
                    let known = self.identities.canonical(pod.identity);
                    // Its identity is on the way: until it is here, the pod is who it was.
                    let Some(identity) = known.or_else(|| Some(self.before.pods.get(&id)?.identity)) else {
                        continue;
                    };
                    let addresses = self.addresses(name, &format!("spec.pods[{index}]"), &pod.addresses);
                    self.pods.insert(
                        id,
                        PodEntry {
                            node: pod.node.clone(),
                            identity,
                            addresses,
                        },
                    );
                }
            }
            None if !slice.pods.is_empty() => self.problem(
                name,
                "spec.namespace",
                "it is missing; the slice's pods are left out",
            ),
            None => {}
        }
        for (index, node) in slice.nodes.iter().enumerate() {
            let field = format!("spec.nodes[{index}]");
            let entry = NodeEntry {
                addresses: self.addresses(name, &field, &node.addresses),
                pod_cidrs: self.pod_cidrs(name, &field, &node.pod_cidrs),
            };
            self.nodes.insert(node.name.clone(), entry);
        }
    }

    fn addresses(&mut self, slice: &str, field: &str, texts: &[String]) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let wrong = match text.parse::<IpAddr>() {
                Ok(address) => match special(address) {
                    None => {
                        addresses.push(address);
                        continue;
                    }
                    Some(what) => format!("{address} is {what}; it is left out"),
                },
                Err(_) => format!("{text:?} is no IP address; it is left out"),
            };
            self.problem(slice, &format!("{field}.addresses[{index}]"), &wrong);
        }
        addresses
    }

    fn pod_cidrs(&mut self, slice: &str, field: &str, texts: &[String]) -> Vec<IpNet> {
        let mut cidrs = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<IpNet>() {
                Ok(cidr) => cidrs.push(cidr.trunc()),
                Err(_) => self.problem(
                    slice,
                    &format!("{field}.podCIDRs[{index}]"),
                    &format!("{text:?} is no CIDR; it is left out"),
                ),
            }
        }
        cidrs
    }

    fn problem(&mut self, slice: &str, field: &str, message: &str) {
        self.problems.push(BookProblem {
            kind: "AddressSlice",
            slice: slice.to_owned(),
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity_slices(slices: &[(&str, Value)]) -> IdentitySlices {
        slices
            .iter()
            .map(|(name, spec)| {
                let spec = serde_json::from_value(spec.clone()).expect("a spec");
                ((*name).to_owned(), Arc::new(spec))
            })
            .collect()
    }

    fn address_slices(slices: &[(&str, Value)]) -> AddressSlices {
        slices
            .iter()
            .map(|(name, spec)| {
                let spec = serde_json::from_value(spec.clone()).expect("a spec");
                ((*name).to_owned(), Arc::new(spec))
            })
            .collect()
    }

    fn one_namespace(identities: Value) -> IdentitySlices {
        identity_slices(&[
            ("head", json!({"revision": 4, "lastNumber": 9})),
            (
                "a",
                json!({"revision": 3, "namespaces": [
                    {"name": "shop", "labels": {"team": "a"}, "identities": identities}
                ]}),
            ),
        ])
    }

    fn one_pod(identity: u32) -> AddressSlices {
        address_slices(&[
            ("head", json!({"revision": 5})),
            (
                "p",
                json!({"revision": 2, "namespace": "shop", "pods": [
                    {"name": "db", "node": "n2", "identity": identity, "addresses": ["10.1.0.7", "fd00::7"]}
                ]}),
            ),
        ])
    }

    fn texts(book: &AddressBook) -> Vec<String> {
        book.problems.iter().map(ToString::to_string).collect()
    }

    fn pod(identity: u32, addresses: &[&str]) -> PodEntry {
        PodEntry {
            node: "n2".to_owned(),
            identity,
            addresses: addresses
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
        }
    }

    #[test]
    fn slices_become_a_book() {
        let identities = one_namespace(json!([
            {"number": 7, "podLabels": {"app": "db"}, "namedPorts": {"sql": ["TCP/5432", "UDP/5432"]}}
        ]));
        let mut addresses = one_pod(7);
        addresses.extend(address_slices(&[(
            "nodes",
            json!({"revision": 1, "nodes": [
                {"name": "n2", "addresses": ["192.168.0.2"], "podCIDRs": ["10.1.0.1/24"]}
            ]}),
        )]));
        let book = address_book(&identities, &addresses, &AddressBook::default());
        let key = IdentityKey {
            namespace: "shop".to_owned(),
            pod_labels: BTreeMap::from([("app".to_owned(), "db".to_owned())]),
            namespace_labels: Labels::new(),
            named_ports: BTreeMap::from([(
                "sql".to_owned(),
                BTreeSet::from([(Protocol::Tcp, 5432), (Protocol::Udp, 5432)]),
            )]),
        };
        let expected = AddressBook {
            identities: Arc::new(Identities {
                numbers: BTreeMap::from([(key.clone(), 7)]),
                digests: BTreeMap::from([(identity_digest(&key), 7)]),
                keys: BTreeMap::from([(7, Arc::new(key))]),
                namespaces: BTreeMap::from([(
                    "shop".to_owned(),
                    BTreeMap::from([("team".to_owned(), "a".to_owned())]),
                )]),
                revision: Some(4),
                problems: Vec::new(),
            }),
            pods: BTreeMap::from([(PodId::new("shop", "db"), pod(7, &["10.1.0.7", "fd00::7"]))]),
            nodes: BTreeMap::from([(
                "n2".to_owned(),
                NodeEntry {
                    addresses: vec!["192.168.0.2".parse().expect("an address")],
                    pod_cidrs: vec!["10.1.0.0/24".parse().expect("a CIDR")],
                },
            )]),
            revision: Some(4),
            problems: Vec::new(),
        };
        assert_eq!(book, expected);
    }

    #[test]
    fn without_both_heads_there_is_no_revision() {
        let mut addresses = one_pod(7);
        addresses.remove("head");
        let book = address_book(&one_namespace(json!([])), &addresses, &AddressBook::default());
        assert_eq!(book.revision, None);
    }

    #[test]
    fn a_pod_keeps_its_identity_until_the_new_one_is_known() {
        let old = one_namespace(json!([{"number": 7, "podLabels": {"app": "db"}}]));
        let id = PodId::new("shop", "db");
        let before = address_book(&old, &one_pod(7), &AddressBook::default());
        let ahead = address_book(&old, &one_pod(8), &before);
        assert_eq!(ahead.pods[&id].identity, 7);
        // The slices of identities lose the old one before the addresses' watch has told of the new one.
        let new = one_namespace(json!([{"number": 8, "podLabels": {"app": "db", "tier": "x"}}]));
        let behind = address_book(&new, &one_pod(7), &before);
        assert_eq!(behind.pods[&id].identity, 7);
        assert_eq!(behind.identities.canonical(7), Some(7));
        let after = address_book(&new, &one_pod(8), &behind);
        assert_eq!(after.pods[&id].identity, 8);
        let settled = address_book(&new, &one_pod(8), &after);
        assert_eq!(settled.identities.keys.keys().copied().collect::<Vec<_>>(), [8]);
        // Somebody whom nobody knew before is nobody yet.
        let unknown = address_book(&new, &one_pod(9), &AddressBook::default());
        assert_eq!(unknown.pods, BTreeMap::new());
    }

    #[test]
    fn an_identity_with_two_numbers_is_known_by_the_smaller() {
        let twice = one_namespace(json!([
            {"number": 3, "podLabels": {"app": "db"}}, {"number": 7, "podLabels": {"app": "db"}}
        ]));
        let book = address_book(&twice, &one_pod(7), &AddressBook::default());
        assert_eq!(book.pods[&PodId::new("shop", "db")].identity, 3);
        assert_eq!(book.identities.canonical(7), Some(3));
    }

    #[test]
    fn of_two_slices_the_later_one_counts() {
        let identities = one_namespace(json!([{"number": 7}]));
        let mut addresses = one_pod(7);
        addresses.extend(address_slices(&[(
            "a",
            json!({"revision": 3, "namespace": "shop", "pods": [
                {"name": "db", "node": "n2", "identity": 7, "addresses": ["10.1.0.8"]}
            ]}),
        )]));
        let book = address_book(&identities, &addresses, &AddressBook::default());
        assert_eq!(book.pods[&PodId::new("shop", "db")], pod(7, &["10.1.0.8"]));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_out() {
        let identities = one_namespace(json!([
            {"number": 0}, {"number": 1_073_741_824}, {"number": 5, "namedPorts": {"web": ["TCP/0"]}}
        ]));
        let addresses = address_slices(&[
            (
                "p",
                json!({"revision": 2, "namespace": "shop", "pods": [
                {"name": "db", "node": "n2", "identity": 5, "addresses": ["10.1.0.7"]}
            ], "nodes": [{"name": "n", "addresses": ["here", "127.0.0.1"], "podCIDRs": ["10.0.0.0/33"]}]}),
            ),
            (
                "q",
                json!({"revision": 2, "pods": [{"name": "x", "node": "n2", "identity": 5, "addresses": []}]}),
            ),
        ]);
        let book = address_book(&identities, &addresses, &AddressBook::default());
        assert_eq!(
            texts(&book),
            [
                "AddressSlice p: spec.nodes[0].addresses[0]: \"here\" is no IP address; it is left out",
                "AddressSlice p: spec.nodes[0].addresses[1]: 127.0.0.1 is a loopback address; it is left out",
                "AddressSlice p: spec.nodes[0].podCIDRs[0]: \"10.0.0.0/33\" is no CIDR; it is left out",
                "AddressSlice q: spec.namespace: it is missing; the slice's pods are left out",
                "IdentitySlice a: spec.namespaces[0].identities[0]: 0 is no number of an identity: they go from 1 to \
                 1073741823; the identity is left out",
                "IdentitySlice a: spec.namespaces[0].identities[1]: 1073741824 is no number of an identity: they go \
                 from 1 to 1073741823; the identity is left out",
                "IdentitySlice a: spec.namespaces[0].identities[2]: a port named \"web\" is not like TCP/8080; \
                 identity 5 is left out",
            ]
        );
        assert_eq!((book.pods, book.identities.keys.len()), (BTreeMap::new(), 0));
        assert_eq!(
            book.nodes,
            BTreeMap::from([("n".to_owned(), NodeEntry::default())])
        );
    }
}
