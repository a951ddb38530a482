//! `PolicyStatus` of `dataplane.weir.dev/v1alpha1`: the status that `networking.k8s.io/v1` NetworkPolicy lacks.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of one list for repetitions"
)]
#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Which policy the object tells about. It has the policy's name and namespace, and is owned by it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "PolicyStatus",
    plural = "policystatuses",
    singular = "policystatus",
    shortname = "npstatus",
    category = "weir",
    namespaced,
    doc = "PolicyStatus tells whether the NetworkPolicy of the same name is in force. It is written by Weir's operator, and goes with the policy.",
    derive = "PartialEq",
    status = "PolicyStatusStatus",
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        name = "Accepted",
        type_ = "string"
    ),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status",
        name = "Programmed",
        type_ = "string"
    ),
    printcolumn(json_path = ".status.nodes", name = "Nodes", type_ = "string"),
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        name = "Message",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
pub struct PolicyStatusSpec {
    /// The UID of the NetworkPolicy. Another policy of the same name has another PolicyStatus: the generation of
    /// this one never rises, so that `kubectl wait`, which compares it with what a condition has observed, returns.
    #[serde(rename = "policyUID")]
    #[x_kube(validation = ("self == oldSelf", "policyUID never changes: delete the PolicyStatus, and the operator writes the one of the new policy"))]
    pub policy_uid: String,
}

/// Whether the policy is in force.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatusStatus {
    /// Accepted: the policy is understood. Programmed: every node that hosts a pod which it selects has it in its
    /// kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many of the nodes concerned have the policy in their kernel, like 11/12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(PolicyStatus::crd())?)
}
