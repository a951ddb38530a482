//! `DataplaneConfig` of `dataplane.weir.dev/v1alpha1`: how nodes run.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of one list for repetitions"
)]
#![expect(
    unreachable_pub,
    reason = "the schema derive makes a copy of each struct inside a function, and the copy is pub too"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// How the nodes that it selects run. Without any DataplaneConfig, every node runs with the defaults.
///
/// Several may select a node: they are merged field by field, the one with the higher precedence winning. Two of the
/// same precedence that set one field to different values are in conflict: the older wins, and the younger says so in
/// its conditions. Every field can be changed at any time, and no pod is restarted for it.
// The schema carries no defaults, so that the API server adds nothing to an object that somebody applied.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "DataplaneConfig",
    plural = "dataplaneconfigs",
    shortname = "dpc",
    category = "weir",
    doc = "DataplaneConfig says how the nodes that it selects run.",
    derive = "PartialEq",
    status = "DataplaneConfigStatus",
    printcolumn(json_path = ".spec.precedence", name = "Precedence", type_ = "integer"),
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
    printcolumn(
        json_path = ".status.conditions[?(@.type==\"Degraded\")].status",
        name = "Degraded",
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
pub struct DataplaneConfigSpec {
    /// The nodes, by their labels. Absent or empty: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::checked_label_selector")]
    pub node_selector: Option<LabelSelector>,
    /// Where several select a node, fields of the higher one win. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub precedence: Option<i32>,
    #[serde(flatten)]
    pub settings: DataplaneSettings,
}

/// The settings of a node. An absent field has the default that its description names.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneSettings {
    /// How Services are routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceSettings>,
    /// How policy is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySettings>,
    /// The pod network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSettings>,
    /// Sizes of what is held in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacitySettings>,
    /// What is told, and how much of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<ObservabilitySettings>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSettings {
    /// Whether a connection to a Service is translated when a socket connects (Enabled), or each of its packets
    /// (Disabled). Either way, what sends without asking the node's sockets is translated by packet. Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_load_balancing: Option<Switch>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PolicySettings {
    /// What a change of policy does to connections that are established: they are judged anew (Reevaluate), or go on
    /// until they end (Keep). Default: Reevaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established_connections: Option<EstablishedConnections>,
    /// For how many seconds a new pod waits for its policy to be in the kernel. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 110))]
    pub pod_start_timeout_seconds: Option<i32>,
    /// What becomes of a pod whose policy is not in the kernel by then: it starts, and nothing but traffic with its own
    /// node passes until the policy is there (StartClosed), or its start fails and is tried again (Fail). Default:
    /// StartClosed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_pod_start_timeout: Option<OnPodStartTimeout>,
}

#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.nativeRoutes) && has(self.mode) && self.mode == 'Vxlan')").message("nativeRoutes is about mode Native: remove it, or the mode Vxlan").field_path(".nativeRoutes"))]
pub struct NetworkSettings {
    /// How packets get to the pods of other nodes: by routes to their pod CIDRs (Native), or in VXLAN (Vxlan).
    /// Default: Native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// Whether the agent makes the routes to the other nodes' pod CIDRs (Enabled), which takes that nodes are neighbours
    /// on a link, or the network knows them already (Disabled). Of mode Native only. Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_routes: Option<Switch>,
    /// The node's interfaces to the network. Absent or empty: those with a default route, or that have one of the
    /// node's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "interface_names")]
    pub uplinks: Option<Vec<String>>,
    /// Of pod interfaces, in bytes without the Ethernet header. Absent: the smallest of the uplinks', less what a
    /// tunnel takes. It takes hold of pods that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 65535))]
    pub mtu: Option<i32>,
    /// Whether what pods send to addresses outside the cluster gets the node's address as its source. Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<Switch>,
    /// Networks outside the cluster that see pods by their own addresses. Default: 10.0.0.0/8, 172.16.0.0/12,
    /// 192.168.0.0/16, fc00::/7.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "nonMasqueradeCIDRs"
    )]
    #[schemars(schema_with = "networks")]
    pub non_masquerade_cidrs: Option<Vec<String>>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CapacitySettings {
    /// How many connections of each address family the flow table holds. Default: 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 16777216))]
    pub flows: Option<i32>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObservabilitySettings {
    /// How many records of decisions a second each CPU of a node may hand to the agent; what is more is lost, and
    /// counted. Default: 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub records_per_second: Option<i32>,
    /// What the agent tells in its own log. Default: Info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    Enabled,
    Disabled,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstablishedConnections {
    Reevaluate,
    Keep,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPodStartTimeout {
    StartClosed,
    Fail,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    Native,
    Vxlan,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// What became of the config.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneConfigStatus {
    /// Accepted: the spec is valid, and no field of it is overruled by a conflict. Programmed: every node that it
    /// selects runs by it. Degraded: some node that it selects could not do what it asks for, or has not reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many of the nodes that it selects run by it, like 11/12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// Names that Linux lets an interface have (`dev_valid_name` in `net/core/dev.c`): no space, `/` or `:`.
fn interface_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 16,
        "items": {
            "type": "string",
            "maxLength": 15,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[!-.0-9;-~]+$') && self != '.' && self != '..'",
                "message": "must be the name of a network interface, like eth0"
            }]
        }
    })
}

fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 64,
        "items": {
            "type": "string",
            "maxLength": 43,
            "x-kubernetes-validations": [{
                "rule": "isCIDR(self)",
                "message": "must be a network in CIDR notation, like 10.0.0.0/8 or fd00::/8"
            }]
        }
    })
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(DataplaneConfig::crd())?)
}
