//! What people and the cluster say: everything that the plan follows from, as one sorted value.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::jiff::Timestamp;
use weir_api::DataplaneSettings;
use weir_policy::snapshot::{ObjectName, Snapshot};

use crate::decode::Undecodable;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub snapshot: Snapshot,
    /// By name, as in the snapshot.
    pub nodes: BTreeMap<String, NodeFacts>,
    pub network_policies: BTreeMap<ObjectName, Written>,
    pub cluster_network_policies: BTreeMap<String, Written>,
    pub flow_log_policies: BTreeMap<String, Written>,
    pub dataplane_configs: BTreeMap<String, Config>,
    /// The PolicyStatuses that exist.
    pub policy_statuses: BTreeMap<ObjectName, HeldStatus>,
    /// Nodes whose agent has a Lease.
    pub agents: BTreeSet<String>,
}

/// Of a node what policy does not look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub uid: String,
    pub pod_cidrs: Vec<String>,
}

/// What there is to know of an object that somebody wrote, beside its spec.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    pub uid: String,
    pub generation: i64,
    pub created: Option<Timestamp>,
    /// The conditions in its status.
    pub conditions: Vec<Condition>,
    /// `status.nodes`, where the kind has it.
    pub nodes: Option<String>,
    pub undecodable: Vec<Undecodable>,
}

/// A DataplaneConfig.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub written: Written,
    /// `None` where it could not be read: no node is selected.
    pub node_selector: Option<LabelSelector>,
    pub precedence: i32,
    pub settings: DataplaneSettings,
}

/// A PolicyStatus as it stands in the API.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeldStatus {
    /// The policy that it tells about.
    pub policy_uid: String,
    /// The policies that own it. None but this one should.
    pub owners: Vec<String>,
    pub conditions: Vec<Condition>,
    pub nodes: Option<String>,
}
