//! An API server and agents as plain values: writes are carried out one by one, in any order that the stages allow, and
//! nodes acknowledge when they like.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::sample::Index;
use serde_json::Value;
use weir_api::address_slice::AddressSliceSpec;
use weir_api::identity_slice::{HEAD, IdentitySliceSpec, NamespaceIdentities};
use weir_operator::cluster::{Cluster, NodeFacts};
use weir_operator::existing::{Existing, Held, NodeObject, Report, Slice};
use weir_operator::plan::{Wanted, book, plan};
use weir_operator::writes::{Writes, writes};
use weir_policy::identity::IdentityKey;
use weir_policy::snapshot::Snapshot;

#[derive(Debug, Clone, Default)]
pub(crate) struct Simulation {
    pub(crate) cluster: Cluster,
    pub(crate) existing: Existing,
    /// The specs that the API has, and those that the kernels hold.
    pub(crate) specs: BTreeMap<String, Value>,
    pub(crate) kernels: BTreeMap<String, Value>,
}

/// Looked at after every step.
pub(crate) type Look<'a> = &'a mut dyn FnMut(&Simulation);

/// A write of one object, or what a node does.
#[derive(Debug, Clone)]
enum Step {
    IdentitySlice(String, IdentitySliceSpec),
    AddressSlice(String, AddressSliceSpec),
    DropAddressSlice(String),
    DropIdentitySlice(String),
    Node(String, Value),
}

impl Simulation {
    pub(crate) fn become_snapshot(&mut self, snapshot: Snapshot) {
        let facts = snapshot.nodes.keys().map(|name| {
            let facts = NodeFacts {
                uid: format!("uid-of-{name}"),
                pod_cidrs: Vec::new(),
            };
            (name.clone(), facts)
        });
        self.cluster.nodes = facts.collect();
        self.cluster.agents = snapshot.nodes.keys().cloned().collect();
        self.cluster.snapshot = snapshot;
    }

    /// Makes rounds until there is nothing left to write.
    pub(crate) fn settle(&mut self, order: &[Index], look: Look<'_>) {
        for _ in 0..40 {
            if !self.advance(order, 1, look) {
                return;
            }
        }
        panic!("the plan does not come to rest");
    }

    /// Makes some rounds, and says whether anything was written or acknowledged.
    pub(crate) fn advance(&mut self, order: &[Index], rounds: usize, look: Look<'_>) -> bool {
        let mut moved = false;
        for _ in 0..rounds {
            let wanted = plan(&self.cluster, &self.existing);
            let mut writes = writes(&self.cluster, &wanted, &self.existing);
            writes.nodes.append(&mut writes.patient);
            moved |= !writes.is_empty();
            for mut stage in stages(&wanted, &writes) {
                shuffle(&mut stage, order);
                for step in stage {
                    self.take(step);
                    look(self);
                    moved |= self.some_acknowledge(order, look);
                }
            }
            moved |= self.some_acknowledge(&[], look);
        }
        moved
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::IdentitySlice(name, spec) => {
                self.existing.set_identity_slice(name, slice(spec));
            }
            Step::AddressSlice(name, spec) => {
                self.existing.set_address_slice(name, slice(spec));
            }
            Step::DropAddressSlice(name) => drop(self.existing.address_slices.remove(&name)),
            Step::DropIdentitySlice(name) => drop(self.existing.identity_slices.remove(&name)),
            Step::Node(name, spec) => {
                let known = self.existing.nodes.get(&name).cloned().unwrap_or_default();
                let object = NodeObject {
                    uid: format!("uid-of-the-object-of-{name}"),
                    generation: known.generation + 1,
                    owner: Some(format!("uid-of-{name}")),
                    spec: Arc::new(Held::read(&spec)),
                    report: known.report,
                };
                self.existing.set_node(name.clone(), object);
                self.specs.insert(name, spec);
            }
        }
    }

    /// The nodes that `order` names take the spec that the API has, if the heads allow; without an order all do.
    fn some_acknowledge(&mut self, order: &[Index], look: Look<'_>) -> bool {
        let mut moved = false;
        let names: Vec<String> = self.specs.keys().cloned().collect();
        for (place, name) in names.into_iter().enumerate() {
            let step = self.existing.last_revision() as usize + place;
            let turn = order.is_empty() || order[step % order.len()].index(4) == 0;
            if turn && self.acknowledge(&name) {
                moved = true;
                look(self);
            }
        }
        moved
    }

    fn acknowledge(&mut self, name: &str) -> bool {
        let (head, _) = self.existing.head();
        let known = &self.existing.nodes[name];
        let spec = &self.specs[name];
        if known.is_current() || spec["addressBook"].as_i64().unwrap() > head {
            return false;
        }
        let (known, spec) = (known.clone(), spec.clone());
        self.kernels.insert(name.to_owned(), spec);
        let object = NodeObject {
            uid: known.uid.clone(),
            generation: known.generation,
            owner: known.owner.clone(),
            spec: known.current.clone(),
            report: Report {
                present: true,
                programmed_generation: Some(known.generation),
                ..Report::default()
            },
        };
        self.existing.set_node(name.to_owned(), object);
        true
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &NamespaceIdentities> {
        self.existing
            .identity_slices
            .values()
            .flat_map(|slice| &slice.spec.namespaces)
    }

    pub(crate) fn identities(&self) -> BTreeMap<IdentityKey, u32> {
        book(self.namespaces())
    }

    /// The pod and the number that an address has in the book.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<u32> {
        let pods = self
            .existing
            .address_slices
            .values()
            .flat_map(|slice| &slice.spec.pods);
        pods.into_iter()
            .find(|pod| pod.addresses.iter().any(|text| text.parse() == Ok(address)))
            .map(|pod| pod.identity)
    }
}

fn slice<S>(spec: S) -> Slice<S> {
    Slice {
        uid: "a".to_owned(),
        generation: 1,
        spec,
    }
}

fn stages(wanted: &Wanted, writes: &Writes) -> Vec<Vec<Step>> {
    let identities = writes.identity_slices.clone().into_iter();
    let addresses = writes.address_slices.clone().into_iter();
    let one = |step: Option<Step>| step.into_iter().collect::<Vec<Step>>();
    let nodes = writes.nodes.iter().map(|name| {
        let spec = wanted.spec(name, writes.address_book).unwrap();
        Step::Node(name.clone(), serde_json::to_value(spec).unwrap())
    });
    vec![
        identities
            .map(|(name, spec)| Step::IdentitySlice(name, spec))
            .collect(),
        addresses
            .map(|(name, spec)| Step::AddressSlice(name, spec))
            .collect(),
        writes
            .stale_address_slices
            .iter()
            .cloned()
            .map(Step::DropAddressSlice)
            .collect(),
        writes
            .stale_identity_slices
            .iter()
            .cloned()
            .map(Step::DropIdentitySlice)
            .collect(),
        one(writes
            .identity_head
            .clone()
            .map(|head| Step::IdentitySlice(HEAD.to_owned(), head))),
        one(writes
            .address_head
            .clone()
            .map(|head| Step::AddressSlice(HEAD.to_owned(), head))),
        nodes.collect(),
    ]
}

fn shuffle(steps: &mut [Step], order: &[Index]) {
    for (position, index) in (1..steps.len()).zip(order.iter().cycle()) {
        steps.swap(position, index.index(position + 1));
    }
}
