//! `FlowLogPolicy` of `dataplane.weir.dev/v1alpha1`: which connections are written to the policy log, and where.

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

/// What to log. Without any field set, every connection of every pod is logged, allowed or denied, in both directions.
///
/// A connection that several FlowLogPolicies ask for is written once to each sink.
// The schema carries no defaults, so that the API server adds nothing to an object that somebody applied; an absent
// field is read as the default that its description names.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataplane.weir.dev",
    version = "v1alpha1",
    kind = "FlowLogPolicy",
    plural = "flowlogpolicies",
    shortname = "flp",
    category = "weir",
    doc = "FlowLogPolicy says which connections are written to the policy log, and where.",
    derive = "PartialEq",
    status = "FlowLogPolicyStatus",
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
pub struct FlowLogPolicySpec {
    /// The pods whose connections are logged: those that a selected pod opens (egress) and those that it is asked for
    /// (ingress). Absent: all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<LogSubject>,
    /// Which verdicts are logged. Default: Allow and Deny.
    #[serde(default = "all_verdicts")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub verdicts: Vec<LogVerdict>,
    /// Which directions are logged, seen from the selected pod. Default: Ingress and Egress.
    #[serde(default = "all_directions")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub directions: Vec<LogDirection>,
    /// How many of the allowed connections are logged. Denials are never sampled.
    #[serde(default)]
    pub sampling: Sampling,
    /// How repeated denials are folded into one record. Allowed connections are one record each.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// An upper limit on what a node writes. Records beyond it are counted, and the count appears in the log.
    #[serde(default)]
    pub budget: Budget,
    /// How a record is written. Default: PolicyAction.
    #[serde(default)]
    pub format: LogFormat,
    /// Where the records go.
    #[serde(default)]
    pub sink: Sink,
}

/// A pod is selected when both selectors match. An absent selector matches everything; so does an empty one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LogSubject {
    /// Selects namespaces by their labels. Each namespace carries the label kubernetes.io/metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::checked_label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Selects pods by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::checked_label_selector")]
    pub pod_selector: Option<LabelSelector>,
}

/// A verdict on a connection.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogVerdict {
    Allow,
    Deny,
}

/// A direction, seen from the pod that a policy selects.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogDirection {
    Ingress,
    Egress,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sampling {
    /// One in this many allowed connections is logged. Default: 1, each of them.
    #[serde(default = "Sampling::default_allow_every")]
    #[schemars(range(min = 1, max = 65535))]
    pub allow_every: i32,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Aggregation {
    /// Denials of the same source, destination, protocol and destination port within this many seconds become one
    /// record with a count. 0: a record for each. Default: 5.
    #[serde(default = "Aggregation::default_deny_seconds")]
    #[schemars(range(min = 0, max = 300))]
    pub deny_seconds: i32,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Records a second that a node writes for this policy. Default: 500.
    #[serde(default = "Budget::default_records_per_second")]
    #[schemars(range(min = 1, max = 1000000))]
    pub records_per_second: i32,
}

/// How a record is written.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogFormat {
    /// A JSON object a line, with the fields of GKE's policy action log.
    #[default]
    PolicyAction,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// A file on the node.
    #[serde(default)]
    pub file: FileSink,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FileSink {
    /// Absolute path of the file on the node, below /var/log/network: nowhere else may a node's agent write. Default:
    /// /var/log/network/policy_action.log.
    #[serde(default = "FileSink::default_path")]
    #[schemars(schema_with = "log_file_path")]
    pub path: String,
    /// The file is rotated when it would grow beyond this many megabytes (of 1,000,000 bytes). Default: 10.
    #[serde(default = "FileSink::default_max_size_megabytes")]
    #[schemars(range(min = 1, max = 10240))]
    pub max_size_megabytes: i32,
    /// How many rotated files are kept besides the one being written. Default: 5.
    #[serde(default = "FileSink::default_max_files")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_files: i32,
}

/// What became of the policy.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FlowLogPolicyStatus {
    /// Accepted: the spec is valid. Programmed: every node logs by it. Degraded: some node lost records or could not
    /// write them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many nodes log by it, of those that run, like 11/12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// A file below the one folder of the node that the agent's pod gets for logs.
fn log_file_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 255,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^/var/log/network(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$')",
            "message": "must be a file below /var/log/network, like /var/log/network/policy_action.log; names in it are of letters, digits, '-', '_' and '.', and do not begin with '.'"
        }]
    })
}

/// The CustomResourceDefinition.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    serde_json::from_value(schema::round_off(FlowLogPolicy::crd())?)
}

impl Default for FlowLogPolicySpec {
    fn default() -> Self {
        Self {
            subject: None,
            verdicts: all_verdicts(),
            directions: all_directions(),
            sampling: Sampling::default(),
            aggregation: Aggregation::default(),
            budget: Budget::default(),
            format: LogFormat::default(),
            sink: Sink::default(),
        }
    }
}

impl Sampling {
    fn default_allow_every() -> i32 {
        1
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            allow_every: Self::default_allow_every(),
        }
    }
}

impl Aggregation {
    fn default_deny_seconds() -> i32 {
        5
    }
}

impl Default for Aggregation {
    fn default() -> Self {
        Self {
            deny_seconds: Self::default_deny_seconds(),
        }
    }
}

impl Budget {
    fn default_records_per_second() -> i32 {
        500
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            records_per_second: Self::default_records_per_second(),
        }
    }
}

impl FileSink {
    fn default_path() -> String {
        "/var/log/network/policy_action.log".to_owned()
    }

    fn default_max_size_megabytes() -> i32 {
        10
    }

    fn default_max_files() -> i32 {
        5
    }
}

impl Default for FileSink {
    fn default() -> Self {
        Self {
            path: Self::default_path(),
            max_size_megabytes: Self::default_max_size_megabytes(),
            max_files: Self::default_max_files(),
        }
    }
}

fn all_verdicts() -> Vec<LogVerdict> {
    vec![LogVerdict::Allow, LogVerdict::Deny]
}

fn all_directions() -> Vec<LogDirection> {
    vec![LogDirection::Ingress, LogDirection::Egress]
}
