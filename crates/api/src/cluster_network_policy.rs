//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`, as sigs.k8s.io/network-policy-api v0.2.0 defines it.
//!
//! Every "exactly one of" is a struct of options and not an enum: a member that a later version adds decodes to "none
//! set", which a reader must take as "not understood, fail closed" instead of refusing the whole object.

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
use serde_json::Value;

use crate::schema;

/// Spec defines the desired behavior of ClusterNetworkPolicy.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "policy.networking.k8s.io",
    version = "v1alpha2",
    kind = "ClusterNetworkPolicy",
    plural = "clusternetworkpolicies",
    shortname = "cnp",
    doc = "ClusterNetworkPolicy is a cluster-wide network policy resource.",
    derive = "PartialEq",
    status = "ClusterNetworkPolicyStatus",
    printcolumn(json_path = ".spec.tier", name = "Tier", type_ = "string"),
    printcolumn(json_path = ".spec.priority", name = "Priority", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    annotation(
        "api-approved.kubernetes.io",
        "https://github.com/kubernetes-sigs/network-policy-api/pull/347"
    ),
    annotation("policy.networking.k8s.io/bundle-version", "v0.2.0"),
    annotation("policy.networking.k8s.io/channel", "experimental")
)]
pub struct ClusterNetworkPolicySpec {
    /// Tier is used as the top-level grouping for network policy prioritization. Policies are evaluated in the order
    /// Admin tier, NetworkPolicy tier (the namespaced NetworkPolicies), Baseline tier. What no tier decides is
    /// allowed.
    pub tier: Tier,
    /// Priority is a value from 0 to 1000 indicating the precedence of the policy within its tier. Policies with lower
    /// priority values are checked before policies with higher ones. Weir checks policies of the same tier and
    /// priority in the order of their names; other implementations may not.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// Subject defines the pods to which this ClusterNetworkPolicy applies.
    pub subject: Subject,
    /// Ingress is the list of Ingress rules to be applied to the selected pods, the first that matches deciding. A
    /// policy with no ingress rules does not affect ingress traffic. At most 25 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub ingress: Vec<IngressRule>,
    /// Egress is the list of Egress rules to be applied to the selected pods, the first that matches deciding. A
    /// policy with no egress rules does not affect egress traffic. At most 25 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub egress: Vec<EgressRule>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Admin,
    Baseline,
}

/// Subject defines what resources the policy applies to. Exactly one field must be set. Note that host-networked pods
/// are not included in subject selection.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Subject {
    /// Namespaces is used to select pods via namespace selectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespaces: Option<LabelSelector>,
    /// Pods is used to select pods via namespace AND pod selectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// NamespacedPod allows the user to select a given set of pod(s) in selected namespace(s).
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// NamespaceSelector follows standard label selector semantics; if empty, it selects all Namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// PodSelector is used to explicitly select pods within a namespace; if empty, it selects all Pods.
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_selector: LabelSelector,
}

/// IngressRule describes an action to take on a particular set of traffic destined for pods selected by a
/// ClusterNetworkPolicy's Subject field.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// Name is an identifier for this rule, that may be no more than 100 characters in length. Flow logs, metrics and
    /// `kubectl weir explain` show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// Action specifies the effect this rule will have on matching traffic. Accept accepts it, with the replies and
    /// the related ICMP traffic, and no further ingress rule is looked at. Deny drops it, and no further rule is
    /// looked at. Pass skips the rest of the current tier and goes on with the next one.
    pub action: RuleAction,
    /// From is the list of sources whose traffic this rule applies to. If any element matches the source of incoming
    /// traffic then the specified action is applied. At least one item.
    #[schemars(length(min = 1, max = 25))]
    pub from: Vec<IngressPeer>,
    /// Protocols allows for more fine-grain matching of traffic on protocol-specific attributes such as the port. If
    /// unspecified, protocol-specific attributes will not be used to match traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<Protocol>>,
}

/// EgressRule describes an action to take on a particular set of traffic originating from pods selected by a
/// ClusterNetworkPolicy's Subject field.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols) && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))").message("networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames"))]
pub struct EgressRule {
    /// Name is an identifier for this rule, that may be no more than 100 characters in length. Flow logs, metrics and
    /// `kubectl weir explain` show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// Action specifies the effect this rule will have on matching traffic. Accept accepts it, with the replies and
    /// the related ICMP traffic, and no further egress rule is looked at; ingress rules at the destination still
    /// apply. Deny drops it, and no further rule is looked at. Pass skips the rest of the current tier and goes on
    /// with the next one.
    pub action: RuleAction,
    /// To is the list of destinations whose traffic this rule applies to. If any element matches the destination of
    /// outgoing traffic then the specified action is applied. At least one item.
    #[schemars(length(min = 1, max = 25))]
    pub to: Vec<EgressPeer>,
    /// Protocols allows for more fine-grain matching of traffic on protocol-specific attributes such as the port. If
    /// unspecified, protocol-specific attributes will not be used to match traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<Protocol>>,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    Accept,
    Deny,
    Pass,
}

/// IngressPeer defines a peer to allow traffic from. Exactly one of the fields must be set. A peer with none set (a
/// member of a later version) makes its rule fail closed: an Accept rule matches no traffic, a Deny or Pass rule denies
/// all.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct IngressPeer {
    /// Namespaces defines a way to select all pods within a set of Namespaces. Note that host-networked pods are not
    /// included in this type of peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespaces: Option<LabelSelector>,
    /// Pods defines a way to select a set of pods in a set of namespaces. Note that host-networked pods are not
    /// included in this type of peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// EgressPeer defines a peer to allow traffic to. Exactly one of the fields must be set. A peer with none set (a member
/// of a later version) makes its rule fail closed: an Accept rule matches no traffic, a Deny or Pass rule denies all.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct EgressPeer {
    /// Namespaces defines a way to select all pods within a set of Namespaces. Note that host-networked pods are not
    /// included in this type of peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespaces: Option<LabelSelector>,
    /// Pods defines a way to select a set of pods in a set of namespaces. Note that host-networked pods are not
    /// included in this type of peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Nodes defines a way to select a set of nodes in the cluster (based on the node's labels), by the IPs in their
    /// status.addresses. If present but empty, it selects all Nodes. Experimental channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub nodes: Option<LabelSelector>,
    /// Networks defines a way to select peers via CIDR blocks, for example "10.0.0.0/8" or "fd00::/8". Cluster-internal
    /// traffic is checked against the rule as well: if you Accept or Deny traffic to "0.0.0.0/0", that will allow or
    /// deny all IPv4 pod-to-pod traffic too, and ICMP traffic. At most 25 CIDRs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub networks: Option<Vec<Cidr>>,
    /// DomainNames provides a way to specify domain names as peers, an exact name or "*." and a name, which matches one
    /// or more whole labels in its front. Only supported for Accept rules. At most 25 names. Experimental channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub domain_names: Option<Vec<DomainName>>,
}

/// Protocol describes additional protocol-specific match rules. Exactly one field must be set.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Protocol {
    /// TCP specific protocol matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TransportMatch>,
    /// UDP specific protocol matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<TransportMatch>,
    /// SCTP specific protocol matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<TransportMatch>,
    /// DestinationNamedPort selects a destination port on a pod based on the ContainerPort name. You can't use this in
    /// a rule that targets resources without named ports (e.g. Nodes or Networks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Attributes of TCP, UDP or SCTP to be matched.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct TransportMatch {
    /// DestinationPort for the match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// Port matches on port number. You must specify either Number or Range.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Port {
    /// Number defines a network port value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub number: Option<i32>,
    /// Range defines a contiguous range of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// PortRange defines an inclusive range of ports from the assigned Start value to End value.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.start < self.end").message("Start port must be less than End port"))]
pub struct PortRange {
    /// start defines a network port that is the start of a port range, the Start value must be less than End.
    #[schemars(range(min = 1, max = 65535))]
    pub start: i32,
    /// end specifies the last port in the range. It must be greater than start.
    #[schemars(range(min = 1, max = 65535))]
    pub end: i32,
}

/// An IP address range in CIDR notation, as it was written (for example, "10.0.0.0/8" or "fd00::/8").
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
pub struct Cidr(pub String);

impl JsonSchema for Cidr {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "CIDR is an IP address range in CIDR notation (for example, \"10.0.0.0/8\" or \"fd00::/8\").",
            "type": "string",
            "maxLength": 43,
            "x-kubernetes-validations": [{ "rule": "isCIDR(self)", "message": "Invalid CIDR format provided" }]
        })
    }
}

/// A domain name, or `*.` and a domain name, as it was written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
pub struct DomainName(pub String);

impl JsonSchema for DomainName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DomainName".into()
    }

    // The `A-z` of the pattern is upstream's.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "DomainName describes one or more domain names to be used as a peer. \"kubernetes.io\" matches only itself; \"*.kubernetes.io\" matches every name below it, and not kubernetes.io.",
            "type": "string",
            "pattern": r"^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$"
        })
    }
}

/// Status is the status to be reported by the implementation.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicyStatus {
    /// Conditions say whether the policy was accepted, and whether every node that it concerns enforces it.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Which of upstream's two CustomResourceDefinitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Standard,
    Experimental,
}

/// The CustomResourceDefinition of a channel, its schema equal to upstream's but for descriptions.
///
/// # Errors
/// When a definition cannot be taken apart and put together again as JSON, which no definition made from these types
/// does.
pub fn custom_resource_definition(channel: Channel) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut definition = schema::round_off(ClusterNetworkPolicy::crd())?;
    if channel == Channel::Standard {
        let root = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        remove_experimental(&mut root["properties"]["spec"]["properties"]["egress"]["items"]);
        definition["metadata"]["annotations"]["policy.networking.k8s.io/channel"] = "standard".into();
    }
    serde_json::from_value(definition)
}

/// Takes out of the schema of an egress rule what only the experimental channel has.
fn remove_experimental(egress_rule: &mut Value) {
    if let Value::Object(rule) = egress_rule {
        rule.remove("x-kubernetes-validations");
    }
    if let Value::Object(peer) = &mut egress_rule["properties"]["to"]["items"]["properties"] {
        peer.remove("nodes");
        peer.remove("domainNames");
    }
}
