//! What the operator has written so far, and how far the nodes have come with it.
//!
//! Both the watches and the answers to the operator's own writes tell of it. A watch may be behind an answer: what has a
//! lower generation than what is known already is not news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;
use weir_api::identity_slice::HEAD;
use weir_api::node_dataplane::RefusedSetting;
use weir_api::{AddressSliceSpec, IdentitySliceSpec};
use weir_policy::identity::Relevance;
use weir_policy::model::Policy;

use crate::decode::member;
use crate::digest::{Digest, digest, digest_named};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Existing {
    pub identity_slices: BTreeMap<String, Slice<IdentitySliceSpec>>,
    pub address_slices: BTreeMap<String, Slice<AddressSliceSpec>>,
    pub nodes: BTreeMap<String, ExistingNode>,
}

/// A slice of the address book. One that cannot be read has the default spec, and is written anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slice<S> {
    pub uid: String,
    pub generation: i64,
    pub spec: S,
}

/// A NodeDataplane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExistingNode {
    pub uid: String,
    pub generation: i64,
    /// UID of the Node that owns it.
    pub owner: Option<String>,
    pub current: Arc<Held>,
    /// A spec that was sent and of which it is not known whether it got there.
    pub attempted: Option<Arc<Held>>,
    /// The last spec that the node acknowledged while this operator looked.
    pub acknowledged: Option<(i64, Arc<Held>)>,
    pub report: Report,
}

/// What the plan needs to know of a NodeDataplane's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub address_book: i64,
    pub contents: Contents,
    /// What the policies in it look at.
    pub needs: Relevance,
}

/// A NodeDataplane's spec without the revision that it relies on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub relevance: Arc<Relevance>,
    pub covers: BTreeSet<u32>,
    pub policies: BTreeSet<Digest>,
    /// Of name and content.
    pub flow_logs: BTreeSet<Digest>,
    pub settings: Digest,
}

/// A node's status, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Whether there is any.
    pub present: bool,
    pub programmed_generation: Option<i64>,
    pub refused: Vec<RefusedSetting>,
    pub conditions: Vec<Condition>,
}

impl ExistingNode {
    /// The generation that is in the kernel is the one that was written last.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.report.programmed_generation == Some(self.generation)
    }

    /// What is known to be in the node's kernel.
    #[must_use]
    pub fn in_kernel(&self) -> Option<&Held> {
        if self.is_current() {
            return Some(&self.current);
        }
        let (generation, held) = self.acknowledged.as_ref()?;
        (self.report.programmed_generation == Some(*generation)).then_some(held)
    }

    fn note_acknowledgement(&mut self) {
        if self.is_current() {
            self.acknowledged = Some((self.generation, Arc::clone(&self.current)));
        }
    }
}

impl Existing {
    /// Takes in an IdentitySlice that a watch or an answer told of, and says whether it is news.
    pub fn set_identity_slice(&mut self, name: String, slice: Slice<IdentitySliceSpec>) -> bool {
        set_slice(&mut self.identity_slices, name, slice)
    }

    pub fn set_address_slice(&mut self, name: String, slice: Slice<AddressSliceSpec>) -> bool {
        set_slice(&mut self.address_slices, name, slice)
    }

    /// Takes in a NodeDataplane that a watch or an answer told of.
    pub fn set_node(&mut self, name: String, object: NodeObject) {
        let node = self.nodes.entry(name).or_default();
        if node.uid == object.uid && object.generation < node.generation {
            return;
        }
        if node.uid != object.uid {
            *node = ExistingNode::default();
        }
        if object.generation > node.generation {
            // Something newer than what was attempted is there.
            node.attempted = None;
        }
        node.uid = object.uid;
        node.generation = object.generation;
        node.owner = object.owner;
        node.current = object.spec;
        node.report = object.report;
        node.note_acknowledgement();
    }

    /// Notes that a spec is about to be sent.
    pub fn attempt(&mut self, name: &str, held: Arc<Held>) {
        self.nodes.entry(name.to_owned()).or_default().attempted = Some(held);
    }

    /// Notes that it is known what became of the spec that was sent.
    pub fn settle(&mut self, name: &str) {
        let node = self.nodes.get_mut(name);
        if let Some(node) = node {
            node.attempted = None;
            if node.uid.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// The head revisions: the lower one, and whether both heads exist and agree.
    #[must_use]
    pub fn head(&self) -> (i64, bool) {
        let identities = self.identity_slices.get(HEAD).map(|slice| slice.spec.revision);
        let addresses = self.address_slices.get(HEAD).map(|slice| slice.spec.revision);
        let lower = identities.unwrap_or_default().min(addresses.unwrap_or_default());
        (lower, identities.is_some() && identities == addresses)
    }

    /// The highest revision anywhere.
    #[must_use]
    pub fn last_revision(&self) -> i64 {
        let identities = self.identity_slices.values().map(|slice| slice.spec.revision);
        let addresses = self.address_slices.values().map(|slice| slice.spec.revision);
        let nodes = self.nodes.values().map(|node| node.current.address_book);
        identities.chain(addresses).chain(nodes).max().unwrap_or_default()
    }
}

/// A NodeDataplane as the API hands it out.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeObject {
    pub uid: String,
    pub generation: i64,
    pub owner: Option<String>,
    pub spec: Arc<Held>,
    pub report: Report,
}

fn set_slice<S: PartialEq>(slices: &mut BTreeMap<String, Slice<S>>, name: String, slice: Slice<S>) -> bool {
    let is_known =
        |known: &Slice<S>| *known == slice || (known.uid == slice.uid && slice.generation < known.generation);
    if slices.get(&name).is_some_and(is_known) {
        return false;
    }
    slices.insert(name, slice);
    true
}

impl Held {
    /// Reads a spec. A policy that is not understood is taken to look at everything that the spec calls relevant.
    #[must_use]
    pub fn read(spec: &Value) -> Self {
        let relevance: weir_api::node_dataplane::Relevance = read(member(spec, "relevance"));
        let relevance = from_api(relevance);
        let policies = member(spec, "policies").as_array().map_or(&[][..], Vec::as_slice);
        let decoded: Result<Vec<Policy>, serde_json::Error> =
            policies.iter().map(serde::Deserialize::deserialize).collect();
        let needs = decoded.map_or_else(|_| relevance.clone(), |policies| Relevance::of(&policies));
        let flow_logs = member(spec, "flowLogs").as_object();
        let flow_logs = flow_logs.into_iter().flatten();
        Self {
            address_book: member(spec, "addressBook").as_i64().unwrap_or_default(),
            contents: Contents {
                relevance: Arc::new(relevance),
                covers: read::<Vec<u32>>(member(spec, "covers")).into_iter().collect(),
                policies: policies.iter().map(digest).collect(),
                flow_logs: flow_logs.map(|(name, log)| digest_named(name, log)).collect(),
                settings: settings_digest(member(spec, "settings")),
            },
            needs,
        }
    }
}

/// Of settings; absent ones are those without any field.
#[must_use]
pub fn settings_digest(settings: &Value) -> Digest {
    if settings.is_null() {
        return digest(&Value::Object(serde_json::Map::new()));
    }
    digest(settings)
}

fn read<T: serde::de::DeserializeOwned + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

#[must_use]
pub fn from_api(relevance: weir_api::node_dataplane::Relevance) -> Relevance {
    Relevance {
        pod_labels: relevance.pod_labels,
        namespace_labels: relevance.namespace_labels,
        named_ports: relevance.named_ports,
    }
}

#[must_use]
pub fn to_api(relevance: &Relevance) -> weir_api::node_dataplane::Relevance {
    weir_api::node_dataplane::Relevance {
        pod_labels: relevance.pod_labels.clone(),
        namespace_labels: relevance.namespace_labels.clone(),
        named_ports: relevance.named_ports.clone(),
    }
}

/// Everything that either looks at.
pub fn widen(relevance: &mut Relevance, other: &Relevance) {
    let pairs = [
        (&mut relevance.pod_labels, &other.pod_labels),
        (&mut relevance.namespace_labels, &other.namespace_labels),
        (&mut relevance.named_ports, &other.named_ports),
    ];
    for (keys, others) in pairs {
        for key in others {
            if !keys.contains(key) {
                keys.insert(key.clone());
            }
        }
    }
}
