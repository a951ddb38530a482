//! `NodeDataplane` of `dataplane.weir.dev/v1alpha1`: what the operator wants of a node, and what its agent reports.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of one list for repetitions"
)]
#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataplane_config::DataplaneSettings;
use crate::schema;

/// The desired state of one node. The object is named after the node and owned by it; people read it, and only the
/// operator writes it.
///
/// It is complete for the identities in `covers`: every policy that selects one of them is in `policies`. A pod of
/// another identity waits, closed, for an object that covers it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "NodeDataplane",
    plural = "nodedataplanes",
    shortname = "ndp",
    category = "weir",
    doc = "NodeDataplane holds what a node's kernel is to hold, and what its agent reports. It is written by Weir.",
    derive = "PartialEq",
    status = "NodeDataplaneStatus",
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status",
        name = "Programmed",
        type_ = "string"
    ),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Degraded\")].status",
        name = "Degraded",
        type_ = "string"
    ),
    printcolumn(json_path = ".status.policies", name = "Policies", type_ = "integer"),
    printcolumn(json_path = ".status.pods", name = "Pods", type_ = "integer"),
    printcolumn(json_path = ".status.agent.version", name = "Version", type_ = "string"),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        name = "Message",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
pub struct NodeDataplaneSpec {
    /// The revision of the address book that this object relies on. It is applied only when the head of the
    /// IdentitySlices and the head of the AddressSlices have reached it.
    pub address_book: i64,
    /// What the policies look at: what of a pod makes its identity.
    pub relevance: Relevance,
    /// Numbers of the identities for which this object is complete, ascending.
    #[serde(default)]
    pub covers: Vec<u32>,
    /// The policies that select one of the identities in `covers`, in the form in which Weir's operator
    /// lowers them, sorted.
    #[serde(default)]
    #[schemars(schema_with = "schema::free_form_list")]
    pub policies: Vec<Value>,
    /// The FlowLogPolicies by name, in the form in which Weir's operator lowers them.
    #[serde(default)]
    #[schemars(schema_with = "schema::free_form")]
    pub flow_logs: BTreeMap<String, Value>,
    /// The settings of the node: the DataplaneConfigs that select it, merged.
    // Applied as a whole: where the last field of a map goes, the API server makes the map null, and refuses that.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub settings: DataplaneSettings,
}

/// The labels and names that some policy looks at.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Relevance {
    /// Keys of the pods' labels.
    #[serde(default)]
    pub pod_labels: BTreeSet<String>,
    /// Keys of the namespaces' labels.
    #[serde(default)]
    pub namespace_labels: BTreeSet<String>,
    /// Names of container ports.
    #[serde(default)]
    pub named_ports: BTreeSet<String>,
}

/// What the agent of the node reports. It is written on change; that the agent is alive is told by its Lease.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeDataplaneStatus {
    /// The `metadata.generation` of the spec that is in the kernel, whole. Absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programmed_generation: Option<i64>,
    /// Programmed: the kernel holds the spec of `observedGeneration`. Degraded: something that was asked for cannot be
    /// done on this node, or something is about to run out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The agent that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// How many policies are in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<i64>,
    /// How many pods are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i64>,
    /// Settings that are not in force on this node, and why. Sorted by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedSetting>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// Of the running kernel, as `uname -r` prints it.
    pub kernel: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RefusedSetting {
    /// Like `spec.network.mode`, as a DataplaneConfig names it.
    pub field: String,
    /// Why it is not in force.
    pub message: String,
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(NodeDataplane::crd())?)
}
