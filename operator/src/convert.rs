//! From API objects to what of them matters.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_api::PolicyStatusSpec;
use weir_policy::snapshot::{ClusterNetworkPolicy, NetworkPolicy, Node, Pod};

use crate::agents::LEASE_PREFIX;
use crate::cluster::{Config, HeldStatus, NodeFacts, Written};
use crate::decode::{cluster_network_policy, decode, decode_fields, member};
use crate::existing::{NodeObject, Report, Slice};
use crate::specs::Specs;
use crate::world::{Item, Name};

/// The name of an object.
#[must_use]
pub fn name(metadata: &ObjectMeta) -> Name {
    Name::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

#[must_use]
pub fn namespace(object: &core::Namespace) -> Item {
    Item::Namespace(object.metadata.labels.clone().unwrap_or_default())
}

#[must_use]
pub fn pod(object: &core::Pod) -> Item {
    Item::Pod(Pod::from(object))
}

#[must_use]
pub fn node(object: &core::Node) -> Item {
    let spec = object.spec.as_ref();
    let cidrs = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    let only = spec.and_then(|spec| spec.pod_cidr.clone());
    let facts = NodeFacts {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        pod_cidrs: match cidrs.is_empty() {
            true => only.into_iter().collect(),
            false => cidrs,
        },
    };
    Item::Node(Node::from(object), facts)
}

#[must_use]
pub fn network_policy(object: networking::NetworkPolicy) -> Item {
    let written = written(&object.metadata, &Value::Null);
    let policy = NetworkPolicy {
        annotations: object.metadata.annotations.unwrap_or_default(),
        spec: object.spec.unwrap_or_default(),
    };
    Item::NetworkPolicy(policy, written)
}

#[must_use]
pub fn cluster_policy(object: DynamicObject) -> Item {
    let mut written = written(&object.metadata, &object.data);
    let (spec, undecodable) = cluster_network_policy(member(&object.data, "spec"));
    written.undecodable = undecodable;
    let policy = ClusterNetworkPolicy {
        annotations: object.metadata.annotations.unwrap_or_default(),
        spec,
    };
    Item::ClusterNetworkPolicy(policy, written)
}

#[must_use]
pub fn flow_log_policy(object: &DynamicObject) -> Item {
    let mut written = written(&object.metadata, &object.data);
    let spec = decode(member(&object.data, "spec"), "spec");
    let spec = spec.map_err(|problem| written.undecodable.push(problem)).ok();
    Item::FlowLogPolicy(spec, written)
}

#[must_use]
pub fn dataplane_config(object: &DynamicObject) -> Item {
    let mut written = written(&object.metadata, &object.data);
    let spec = member(&object.data, "spec");
    let (settings, mut problems) = decode_fields(spec, "spec");
    let selector = decode::<Option<LabelSelector>>(member(spec, "nodeSelector"), "spec.nodeSelector");
    let node_selector = match selector {
        Ok(selector) => Some(selector.unwrap_or_default()),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let precedence = decode::<Option<i32>>(member(spec, "precedence"), "spec.precedence");
    let precedence = precedence.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    written.undecodable = problems;
    Item::DataplaneConfig(Config {
        written,
        node_selector,
        precedence: precedence.unwrap_or_default(),
        settings,
    })
}

#[must_use]
pub fn node_dataplane(object: &DynamicObject, specs: &Specs) -> Item {
    Item::NodeDataplane(node_object(object, specs))
}

#[must_use]
pub fn node_object(object: &DynamicObject, specs: &Specs) -> NodeObject {
    let uid = uid(&object.metadata);
    let generation = object.metadata.generation.unwrap_or_default();
    let status = member(&object.data, "status");
    let owners = object.metadata.owner_references.iter().flatten();
    let owner = owners
        .filter(|owner| owner.kind == "Node")
        .map(|owner| owner.uid.clone())
        .next();
    NodeObject {
        spec: specs.read(&uid, generation, member(&object.data, "spec")),
        uid,
        generation,
        owner,
        report: Report {
            present: status.as_object().is_some_and(|status| !status.is_empty()),
            programmed_generation: member(status, "programmedGeneration").as_i64(),
            refused: lenient(member(status, "refused")),
            conditions: lenient(member(status, "conditions")),
        },
    }
}

/// A slice of the address book.
#[must_use]
pub fn slice<S: DeserializeOwned + Default>(object: &DynamicObject) -> Slice<S> {
    Slice {
        uid: uid(&object.metadata),
        generation: object.metadata.generation.unwrap_or_default(),
        spec: lenient(member(&object.data, "spec")),
    }
}

#[must_use]
pub fn policy_status(object: &DynamicObject) -> Item {
    let status = member(&object.data, "status");
    let owners = object.metadata.owner_references.iter().flatten();
    let spec: PolicyStatusSpec = lenient(member(&object.data, "spec"));
    Item::PolicyStatus(HeldStatus {
        policy_uid: spec.policy_uid,
        owners: owners.map(|owner| owner.uid.clone()).collect(),
        conditions: lenient(member(status, "conditions")),
        nodes: lenient(member(status, "nodes")),
    })
}

/// The name of the node, and the Lease of its agent; `None` for other Leases.
#[must_use]
pub fn lease(object: Lease) -> Option<(Name, Item)> {
    let node = object.metadata.name.as_deref()?.strip_prefix(LEASE_PREFIX)?;
    Some((Name::new("", node), Item::Lease(object.spec?)))
}

fn written(metadata: &ObjectMeta, data: &Value) -> Written {
    let status = member(data, "status");
    Written {
        uid: uid(metadata),
        generation: metadata.generation.unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        conditions: lenient::<Vec<Condition>>(member(status, "conditions")),
        nodes: lenient(member(status, "nodes")),
        undecodable: Vec::new(),
    }
}

fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

/// What the operator wrote itself is written anew where it cannot be read.
fn lenient<T: DeserializeOwned + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}
