//! A line of the policy log: the JSON object that GKE writes, with Weir's additions behind it.
//!
//! The names and the order of the fields up to `timestamp` are those of GKE's policy action log; `rule` and what
//! follows are Weir's, as are `policies` on denials.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What one side's policy said about a connection (allowed) or about `count` packets (denied).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRecord {
    pub connection: Connection,
    pub disposition: Disposition,
    /// The policy of the deciding rule; on an implicit denial, all that isolate the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyName>,
    pub src: Party,
    pub dest: Party,
    /// 1 where allowed; the number of packets that were folded into this record where denied.
    pub count: u64,
    /// The node that decided.
    pub node_name: String,
    /// RFC 3339 with nine decimals, UTC; of the first packet where several are folded.
    pub timestamp: String,
    /// The rule's own name, else its place, as in `ingress[0]`. Absent where no rule decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A word of the [table of reasons](weir_abi::reason::Reason).
    pub reason: String,
    /// The Service that the sender asked for, where it was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// What would have been decided were the dry-run policies in force; absent where that is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
    /// Number of the line in the log, rising by one a line. Set by the sink.
    pub seq: u64,
    /// Records that were due since the previous line and were not written. Set by the sink.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

/// The line that says only that records were lost, written where no other line came to say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRecord {
    pub node_name: String,
    pub timestamp: String,
    pub seq: u64,
    pub lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    pub src_ip: IpAddr,
    pub dest_ip: IpAddr,
    /// 0 where the protocol has no ports, and where denials of several source ports are folded.
    #[serde(default, skip_serializing_if = "is_zero_port")]
    pub src_port: u16,
    #[serde(default, skip_serializing_if = "is_zero_port")]
    pub dest_port: u16,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or the protocol number.
    pub protocol: String,
    pub direction: LogDirection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogDirection {
    Ingress,
    Egress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyName {
    pub name: String,
    /// Absent for cluster-wide kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub kind: String,
}

/// One end of a connection: a pod, a node, or an address that is neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Party {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Of the pod's controller; `Node` for a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// The same as `pod_namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The address, where nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<IpAddr>,
}

/// A Service by name, or by address where it has none any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ServiceRef {
    Named { namespace: String, name: String },
    Unknown { instance: IpAddr },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DryRun {
    pub disposition: Disposition,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_port(port: &u16) -> bool {
    *port == 0
}
