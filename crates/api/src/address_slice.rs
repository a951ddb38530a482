//! `AddressSlice` of `dataplane.weir.dev/v1alpha1`: the half of the address book that says whose an address is.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of one list for repetitions"
)]
#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Pods of one namespace with their addresses, or nodes with theirs. The slice named [`HEAD`](crate::identity_slice::HEAD)
/// holds neither, and is written after the others.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "AddressSlice",
    plural = "addressslices",
    category = "weir-internal",
    doc = "AddressSlice is a part of the address book: which pod or node an address belongs to. It is written by Weir's operator.",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.namespace", name = "Namespace", type_ = "string"),
    printcolumn(json_path = ".spec.revision", name = "Revision", type_ = "integer"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
pub struct AddressSliceSpec {
    /// The revision of the address book at which this slice was last written.
    pub revision: i64,
    /// Of the pods; absent in a slice of nodes, and in the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Sorted by name. Pods on their host's network, and those that are over, are not in the book.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodAddresses>,
    /// Sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeAddresses>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodAddresses {
    pub name: String,
    pub node: String,
    /// Number of the pod's identity.
    pub identity: u32,
    pub addresses: Vec<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    pub name: String,
    pub addresses: Vec<String>,
    #[serde(default, rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(AddressSlice::crd())?)
}
