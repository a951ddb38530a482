//! Everything that the watches have told, kept up to date.

use std::collections::BTreeSet;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::jiff::Timestamp;
use weir_api::{AddressSliceSpec, FlowLogPolicySpec, IdentitySliceSpec};
use weir_policy::snapshot::{ClusterNetworkPolicy, Labels, NetworkPolicy, Node, ObjectName, Pod};

use crate::agents::Agents;
use crate::cluster::{Cluster, Config, HeldStatus, NodeFacts, Written};
use crate::existing::{Existing, ExistingNode, NodeObject, Slice};

/// What the operator watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Pod,
    Node,
    NetworkPolicy,
    ClusterNetworkPolicy,
    FlowLogPolicy,
    DataplaneConfig,
    NodeDataplane,
    IdentitySlice,
    AddressSlice,
    PolicyStatus,
    Lease,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Namespace,
        Self::Pod,
        Self::Node,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::FlowLogPolicy,
        Self::DataplaneConfig,
        Self::NodeDataplane,
        Self::IdentitySlice,
        Self::AddressSlice,
        Self::PolicyStatus,
        Self::Lease,
    ];
}

/// An object, cut down to what matters.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Namespace(Labels),
    Pod(Pod),
    Node(Node, NodeFacts),
    NetworkPolicy(NetworkPolicy, Written),
    ClusterNetworkPolicy(ClusterNetworkPolicy, Written),
    /// Without a spec where it could not be read.
    FlowLogPolicy(Option<FlowLogPolicySpec>, Written),
    DataplaneConfig(Config),
    NodeDataplane(NodeObject),
    IdentitySlice(Slice<IdentitySliceSpec>),
    AddressSlice(Slice<AddressSliceSpec>),
    PolicyStatus(HeldStatus),
    /// Of the agent of the node that is the object's name.
    Lease(LeaseSpec),
}

/// The name of an object. Objects without a namespace have an empty one.
pub type Name = ObjectName;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    Set(Name, Box<Item>),
    Removed {
        kind: Kind,
        name: Name,
        uid: String,
    },
    /// All objects of the kind.
    All(Kind, Vec<(Name, Item)>),
}

/// What has to be done again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    pub plan: bool,
    pub statuses: bool,
    /// A node has acknowledged something: what the book keeps for it may go.
    pub acknowledged: bool,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub cluster: Cluster,
    pub existing: Existing,
    pub agents: Agents,
    /// The kinds of which all objects have been seen.
    pub seen: BTreeSet<Kind>,
}

impl Effect {
    const NONE: Self = Self {
        plan: false,
        statuses: false,
        acknowledged: false,
    };
    const PLAN: Self = Self {
        plan: true,
        statuses: true,
        acknowledged: false,
    };
    const STATUSES: Self = Self {
        plan: false,
        statuses: true,
        acknowledged: false,
    };

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            plan: self.plan || other.plan,
            statuses: self.statuses || other.statuses,
            acknowledged: self.acknowledged || other.acknowledged,
        }
    }

    fn plan_if(changed: bool) -> Self {
        if changed { Self::PLAN } else { Self::NONE }
    }
}

impl World {
    /// Whether there is enough to plan by.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.seen.len() == Kind::ALL.len()
    }

    pub fn update(&mut self, update: Update, now: Timestamp) -> Effect {
        match update {
            Update::Set(name, item) => self.set(name, *item, now),
            Update::Removed { kind, name, uid } => self.remove(kind, &name, Some(&uid)),
            Update::All(kind, items) => {
                let kept: BTreeSet<&Name> = items.iter().map(|(name, _)| name).collect();
                let gone: Vec<Name> = self
                    .names(kind)
                    .into_iter()
                    .filter(|name| !kept.contains(name))
                    .collect();
                let mut effect = Effect::plan_if(self.seen.insert(kind));
                for name in gone {
                    effect = effect.and(self.remove(kind, &name, None));
                }
                for (name, item) in items {
                    effect = effect.and(self.set(name, item, now));
                }
                effect
            }
        }
    }

    fn set(&mut self, name: Name, item: Item, now: Timestamp) -> Effect {
        let cluster = &mut self.cluster;
        let snapshot = &mut cluster.snapshot;
        match item {
            Item::Namespace(labels) => Effect::plan_if(put(&mut snapshot.namespaces, name.name, labels)),
            Item::Pod(pod) => Effect::plan_if(put(&mut snapshot.pods, name, pod)),
            Item::Node(node, facts) => {
                let moved = put(&mut snapshot.nodes, name.name.clone(), node);
                Effect::plan_if(put(&mut cluster.nodes, name.name, facts) || moved)
            }
            Item::NetworkPolicy(policy, written) => {
                let changed = put(&mut snapshot.network_policies, name.clone(), policy);
                let told = put(&mut cluster.network_policies, name, written);
                written_effect(changed, told)
            }
            Item::ClusterNetworkPolicy(policy, written) => {
                let changed = put(&mut snapshot.cluster_network_policies, name.name.clone(), policy);
                let told = put(&mut cluster.cluster_network_policies, name.name, written);
                written_effect(changed, told)
            }
            Item::FlowLogPolicy(spec, written) => {
                let changed = match spec {
                    Some(spec) => put(&mut snapshot.flow_log_policies, name.name.clone(), spec),
                    None => snapshot.flow_log_policies.remove(&name.name).is_some(),
                };
                let told = put(&mut cluster.flow_log_policies, name.name, written);
                written_effect(changed, told)
            }
            Item::DataplaneConfig(config) => {
                let known = cluster.dataplane_configs.get(&name.name);
                let changed = known.is_none_or(|known| known.written.generation != config.written.generation);
                let told = put(&mut cluster.dataplane_configs, name.name, config);
                written_effect(changed, told)
            }
            Item::NodeDataplane(object) => self.set_node(name.name, object),
            // The operator's own writes come back as events, and change nothing any more.
            Item::IdentitySlice(slice) => Effect::plan_if(self.existing.set_identity_slice(name.name, slice)),
            Item::AddressSlice(slice) => Effect::plan_if(self.existing.set_address_slice(name.name, slice)),
            Item::PolicyStatus(status) => match put(&mut cluster.policy_statuses, name, status) {
                true => Effect::STATUSES,
                false => Effect::NONE,
            },
            Item::Lease(lease) => {
                self.agents.observe(&name.name, &lease, now);
                Effect::plan_if(cluster.agents.insert(name.name))
            }
        }
    }

    fn set_node(&mut self, name: String, object: NodeObject) -> Effect {
        let before = self.existing.nodes.get(&name).cloned();
        self.existing.set_node(name.clone(), object);
        let after = self.existing.nodes.get(&name);
        if before.as_ref() == after {
            return Effect::NONE;
        }
        let spec = |node: &ExistingNode| (node.owner.clone(), node.current.clone());
        let acknowledged = |node: &ExistingNode| node.report.programmed_generation;
        Effect {
            plan: before.as_ref().map(spec) != after.map(spec),
            statuses: true,
            acknowledged: before.as_ref().map(acknowledged) != after.map(acknowledged),
        }
    }

    fn remove(&mut self, kind: Kind, name: &Name, uid: Option<&str>) -> Effect {
        let cluster = &mut self.cluster;
        let snapshot = &mut cluster.snapshot;
        let is_other = |known: &String| uid.is_some_and(|uid| uid != known);
        let removed = match kind {
            Kind::Namespace => snapshot.namespaces.remove(&name.name).is_some(),
            Kind::Pod => snapshot.pods.remove(name).is_some(),
            Kind::Node => {
                cluster.nodes.remove(&name.name);
                snapshot.nodes.remove(&name.name).is_some()
            }
            Kind::NetworkPolicy => {
                cluster.network_policies.remove(name);
                snapshot.network_policies.remove(name).is_some()
            }
            Kind::ClusterNetworkPolicy => {
                cluster.cluster_network_policies.remove(&name.name);
                snapshot.cluster_network_policies.remove(&name.name).is_some()
            }
            Kind::FlowLogPolicy => {
                snapshot.flow_log_policies.remove(&name.name);
                cluster.flow_log_policies.remove(&name.name).is_some()
            }
            Kind::DataplaneConfig => cluster.dataplane_configs.remove(&name.name).is_some(),
            // What was made anew since is not what the watch tells of.
            Kind::NodeDataplane => {
                let nodes = &mut self.existing.nodes;
                !nodes.get(&name.name).is_some_and(|node| is_other(&node.uid))
                    && nodes.remove(&name.name).is_some()
            }
            Kind::IdentitySlice => {
                let slices = &mut self.existing.identity_slices;
                !slices.get(&name.name).is_some_and(|slice| is_other(&slice.uid))
                    && slices.remove(&name.name).is_some()
            }
            Kind::AddressSlice => {
                let slices = &mut self.existing.address_slices;
                !slices.get(&name.name).is_some_and(|slice| is_other(&slice.uid))
                    && slices.remove(&name.name).is_some()
            }
            Kind::PolicyStatus => {
                cluster.policy_statuses.remove(name);
                return Effect::STATUSES;
            }
            Kind::Lease => {
                self.agents.forget(&name.name);
                cluster.agents.remove(&name.name)
            }
        };
        Effect::plan_if(removed)
    }

    fn names(&self, kind: Kind) -> Vec<Name> {
        let snapshot = &self.cluster.snapshot;
        let cluster_wide = |names: Vec<&String>| names.into_iter().map(|name| Name::new("", name)).collect();
        match kind {
            Kind::Namespace => cluster_wide(snapshot.namespaces.keys().collect()),
            Kind::Pod => snapshot.pods.keys().cloned().collect(),
            Kind::Node => cluster_wide(snapshot.nodes.keys().collect()),
            Kind::NetworkPolicy => snapshot.network_policies.keys().cloned().collect(),
            Kind::ClusterNetworkPolicy => cluster_wide(snapshot.cluster_network_policies.keys().collect()),
            Kind::FlowLogPolicy => cluster_wide(self.cluster.flow_log_policies.keys().collect()),
            Kind::DataplaneConfig => cluster_wide(self.cluster.dataplane_configs.keys().collect()),
            Kind::NodeDataplane => cluster_wide(self.existing.nodes.keys().collect()),
            Kind::IdentitySlice => cluster_wide(self.existing.identity_slices.keys().collect()),
            Kind::AddressSlice => cluster_wide(self.existing.address_slices.keys().collect()),
            Kind::PolicyStatus => self.cluster.policy_statuses.keys().cloned().collect(),
            Kind::Lease => cluster_wide(self.cluster.agents.iter().collect()),
        }
    }
}

fn written_effect(changed: bool, told: bool) -> Effect {
    match (changed, told) {
        (true, _) => Effect::PLAN,
        (false, true) => Effect::STATUSES,
        (false, false) => Effect::NONE,
    }
}

/// Whether the value is another one.
fn put<K: Ord, V: PartialEq>(map: &mut std::collections::BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}
