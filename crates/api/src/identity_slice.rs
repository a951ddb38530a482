//! `IdentitySlice` of `dataplane.weir.dev/v1alpha1`: the half of the address book that says which identities there are.

#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Name of the slice that holds no identities: it is written after all others, so that who has seen its revision has
/// seen them. There is one of each kind of slice.
pub const HEAD: &str = "head";

/// Some namespaces, and identities of their pods. A namespace with many identities is in several slices.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "IdentitySlice",
    plural = "identityslices",
    category = "weir-internal",
    doc = "IdentitySlice is a part of the address book: what makes pods equal in the eyes of the policies. It is written by Weir's operator.",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.revision", name = "Revision", type_ = "integer"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
pub struct IdentitySliceSpec {
    /// The revision of the address book at which this slice was last written.
    pub revision: i64,
    /// In the head only: the last number that was given to an identity. Numbers go up, and are given again only after
    /// all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_number: Option<u32>,
    /// Sorted by name.
    #[serde(default)]
    pub namespaces: Vec<NamespaceIdentities>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceIdentities {
    /// Name of the namespace.
    pub name: String,
    /// Of the namespace's labels those that some policy or FlowLogPolicy looks at.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Sorted by number.
    #[serde(default)]
    pub identities: Vec<Identity>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// From 1; 0 stands for no identity.
    #[schemars(range(min = 1))]
    pub number: u32,
    /// Of the pods' labels those that some policy looks at.
    #[serde(default)]
    pub pod_labels: BTreeMap<String, String>,
    /// Of the namespace's labels those that some policy looks at.
    #[serde(default)]
    pub namespace_labels: BTreeMap<String, String>,
    /// The ports that a pod gives each name, like `TCP/8080`.
    #[serde(default)]
    pub named_ports: BTreeMap<String, BTreeSet<String>>,
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(IdentitySlice::crd())?)
}
