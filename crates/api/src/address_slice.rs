//! `AddressSlice` of `dataplane.weir.dev/v1alpha1`: the half of the address book that says whose an address is.

#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Pods of one namespace with their addresses, or nodes with theirs. The slice named `head` holds neither, and is
/// written after the others.
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
    /// Name of the pod.
    pub name: String,
    /// Name of the node that it runs on.
    pub node: String,
    /// Number of the pod's identity.
    #[schemars(range(min = 1))]
    pub identity: u32,
    /// The pod's addresses, IPv4 and IPv6.
    pub addresses: Vec<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// Name of the node.
    pub name: String,
    /// Those of its status that are IP addresses.
    pub addresses: Vec<String>,
    /// The networks that the node gives its pods addresses from.
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
