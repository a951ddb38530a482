//! The ClusterNetworkPolicy definition is upstream's (network-policy-api v0.2.0) but for the descriptions, in both
//! channels, and objects with members of a later version can be read.

use serde_json::{Value, json};
use weir_api::ClusterNetworkPolicy;
use weir_api::cluster_network_policy::{
    Channel, EgressPeer, IngressPeer, Protocol, RuleAction, Subject, TransportMatch,
    custom_resource_definition,
};

#[test]
fn the_definition_of_the_standard_channel_is_upstreams() {
    assert_eq!(definition(Channel::Standard), expected(Channel::Standard));
}

#[test]
fn the_definition_of_the_experimental_channel_is_upstreams() {
    assert_eq!(definition(Channel::Experimental), expected(Channel::Experimental));
}

#[test]
fn members_of_a_later_version_leave_none_set() {
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": { "name": "later" },
        "spec": {
            "tier": "Admin",
            "priority": 3,
            "subject": { "clouds": {} },
            "ingress": [{ "action": "Accept", "from": [{ "stars": {} }] }],
            "egress": [{
                "action": "Pass",
                "to": [{ "galaxies": { "andromeda": true } }],
                "protocols": [{ "quic": {} }, { "tcp": { "sourcePort": 1 } }],
            }],
        }
    });
    let policy: ClusterNetworkPolicy = serde_json::from_value(policy).expect("unknown members are let pass");
    assert_eq!(policy.spec.subject, Subject::default());
    assert_eq!(policy.spec.ingress[0].from, [IngressPeer::default()]);
    assert_eq!(policy.spec.egress[0].action, RuleAction::Pass);
    assert_eq!(policy.spec.egress[0].to, [EgressPeer::default()]);
    let tcp = Protocol {
        tcp: Some(TransportMatch::default()),
        ..Protocol::default()
    };
    assert_eq!(
        policy.spec.egress[0].protocols,
        Some(vec![Protocol::default(), tcp])
    );
}

#[test]
fn what_was_read_is_written_back() {
    let spec = json!({
        "tier": "Baseline",
        "priority": 1000,
        "subject": { "pods": { "namespaceSelector": { "matchLabels": { "a": "b" } }, "podSelector": {} } },
        "ingress": [{
            "name": "web",
            "action": "Deny",
            "from": [{ "namespaces": { "matchExpressions": [{ "key": "k", "operator": "In", "values": ["v"] }] } }],
            "protocols": [
                { "tcp": { "destinationPort": { "number": 80 } } },
                { "udp": { "destinationPort": { "range": { "start": 1, "end": 65535 } } } },
                { "destinationNamedPort": "http" },
            ],
        }],
        "egress": [{
            "action": "Accept",
            "to": [
                { "networks": ["10.0.0.0/8", "fd00::/8"] },
                { "domainNames": ["*.weir.dev"] },
                { "nodes": {} },
                { "pods": { "podSelector": {} } },
            ],
        }],
    });
    let read: weir_api::ClusterNetworkPolicySpec = serde_json::from_value(spec.clone()).expect("valid");
    assert_eq!(serde_json::to_value(read).expect("serializable"), spec);
}

fn definition(channel: Channel) -> Value {
    let definition = custom_resource_definition(channel).expect("a definition");
    let mut definition = serde_json::to_value(definition).expect("serializable");
    strip_descriptions(&mut definition);
    definition
}

/// A property may be called `description` too, which is an object then.
fn strip_descriptions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| key != "description" || !value.is_string());
            map.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn expected(channel: Channel) -> Value {
    let channel_name = match channel {
        Channel::Standard => "standard",
        Channel::Experimental => "experimental",
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/347",
                "policy.networking.k8s.io/bundle-version": "v0.2.0",
                "policy.networking.k8s.io/channel": channel_name,
            },
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "names": {
                "kind": "ClusterNetworkPolicy",
                "plural": "clusternetworkpolicies",
                "singular": "clusternetworkpolicy",
                "shortNames": ["cnp"],
            },
            "scope": "Cluster",
            "versions": [{
                "name": "v1alpha2",
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    { "name": "Tier", "type": "string", "jsonPath": ".spec.tier" },
                    { "name": "Priority", "type": "string", "jsonPath": ".spec.priority" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "required": ["metadata", "spec"],
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": spec(channel),
                        "status": status(),
                    },
                } },
            }],
        },
    })
}

fn spec(channel: Channel) -> Value {
    json!({
        "type": "object",
        "required": ["priority", "subject", "tier"],
        "properties": {
            "tier": { "type": "string", "enum": ["Admin", "Baseline"] },
            "priority": { "type": "integer", "format": "int32", "minimum": 0.0, "maximum": 1000.0 },
            "subject": exactly_one(json!({ "namespaces": label_selector(), "pods": namespaced_pod() })),
            "ingress": { "type": "array", "maxItems": 25, "items": ingress_rule() },
            "egress": { "type": "array", "maxItems": 25, "items": egress_rule(channel) },
        },
    })
}

fn ingress_rule() -> Value {
    rule(
        "from",
        exactly_one(json!({ "namespaces": label_selector(), "pods": namespaced_pod() })),
    )
}

fn egress_rule(channel: Channel) -> Value {
    let mut peers = json!({
        "namespaces": label_selector(),
        "pods": namespaced_pod(),
        "networks": {
            "type": "array",
            "x-kubernetes-list-type": "set",
            "minItems": 1,
            "maxItems": 25,
            "items": {
                "type": "string",
                "maxLength": 43,
                "x-kubernetes-validations": [{ "rule": "isCIDR(self)", "message": "Invalid CIDR format provided" }],
            },
        },
    });
    if channel == Channel::Standard {
        return rule("to", exactly_one(peers));
    }
    peers["nodes"] = label_selector();
    peers["domainNames"] = json!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "minItems": 1,
        "maxItems": 25,
        "items": {
            "type": "string",
            "pattern": r"^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$",
        },
    });
    let mut rule = rule("to", exactly_one(peers));
    rule["x-kubernetes-validations"] = json!([{
        "rule": "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols) && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))",
        "message": "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames",
    }]);
    rule
}

fn rule(peers: &str, peer: Value) -> Value {
    json!({
        "type": "object",
        "required": ["action", peers],
        "properties": {
            "name": { "type": "string", "maxLength": 100 },
            "action": { "type": "string", "enum": ["Accept", "Deny", "Pass"] },
            peers: { "type": "array", "minItems": 1, "maxItems": 25, "items": peer },
            "protocols": { "type": "array", "minItems": 1, "maxItems": 25, "items": protocol() },
        },
    })
}

fn protocol() -> Value {
    let port = json!({ "type": "integer", "format": "int32", "minimum": 1.0, "maximum": 65535.0 });
    let destination_port = exactly_one(json!({
        "number": port,
        "range": {
            "type": "object",
            "required": ["end", "start"],
            "properties": { "start": port, "end": port },
            "x-kubernetes-validations": [{
                "rule": "self.start < self.end",
                "message": "Start port must be less than End port",
            }],
        },
    }));
    let transport = json!({
        "type": "object",
        "minProperties": 1,
        "properties": { "destinationPort": destination_port },
    });
    exactly_one(json!({
        "tcp": transport,
        "udp": transport,
        "sctp": transport,
        "destinationNamedPort": { "type": "string" },
    }))
}

fn exactly_one(properties: Value) -> Value {
    json!({ "type": "object", "minProperties": 1, "maxProperties": 1, "properties": properties })
}

fn namespaced_pod() -> Value {
    json!({
        "type": "object",
        "required": ["podSelector"],
        "properties": { "namespaceSelector": label_selector(), "podSelector": label_selector() },
    })
}

fn label_selector() -> Value {
    json!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string" },
                        "operator": { "type": "string" },
                        "values": {
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string" },
                        },
                    },
                },
            },
        },
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "required": ["conditions"],
        "properties": { "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                "properties": {
                    "lastTransitionTime": { "type": "string", "format": "date-time" },
                    "message": { "type": "string", "maxLength": 32768 },
                    "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0.0 },
                    "reason": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 1024,
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    },
                    "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                    "type": {
                        "type": "string",
                        "maxLength": 316,
                        "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                    },
                },
            },
        } },
    })
}
