//! Specs that an API server refuses.

use serde_json::{Value, json};

/// A spec that is refused, the field that the refusal names, and what it says.
pub(crate) type Invalid = (&'static str, Value, &'static str, &'static str);

pub(crate) fn specs() -> Vec<Invalid> {
    let mut specs = dataplane_configs();
    specs.extend(flow_log_policies());
    specs.extend(cluster_network_policies());
    specs
}

fn dataplane_configs() -> Vec<Invalid> {
    const KIND: &str = "DataplaneConfig";
    let expression = |requirement: Value| json!({ "nodeSelector": { "matchExpressions": [requirement] } });
    vec![
        (KIND, json!({ "netwrok": {} }), "spec.netwrok", "unknown field"),
        (
            KIND,
            json!({ "precedence": 1001 }),
            "spec.precedence",
            "less than or equal to 1000",
        ),
        (
            KIND,
            json!({ "precedence": "1" }),
            "spec.precedence",
            "must be of type integer",
        ),
        (
            KIND,
            json!({ "services": { "socketLoadBalancing": "On" } }),
            "spec.services.socketLoadBalancing",
            r#""Enabled", "Disabled""#,
        ),
        (
            KIND,
            json!({ "services": { "socketLoadBalancing": null } , "capacity": { "flows": 1 } }),
            "spec.capacity.flows",
            "greater than or equal to 1024",
        ),
        (
            KIND,
            json!({ "policy": { "establishedConnections": "Drop" } }),
            "spec.policy.establishedConnections",
            r#""Reevaluate", "Keep""#,
        ),
        (
            KIND,
            json!({ "policy": { "podStartTimeoutSeconds": 0 } }),
            "spec.policy.podStartTimeoutSeconds",
            "greater than or equal to 1",
        ),
        (
            KIND,
            json!({ "policy": { "podStartTimeoutSeconds": 111 } }),
            "spec.policy.podStartTimeoutSeconds",
            "less than or equal to 110",
        ),
        (
            KIND,
            json!({ "policy": { "onPodStartTimeout": "StartOpen" } }),
            "spec.policy.onPodStartTimeout",
            r#""StartClosed", "Fail""#,
        ),
        (
            KIND,
            json!({ "network": { "mode": "Geneve" } }),
            "spec.network.mode",
            r#""Native", "Vxlan""#,
        ),
        (
            KIND,
            json!({ "network": { "mode": "Vxlan", "nativeRoutes": "Enabled" } }),
            "spec.network.nativeRoutes",
            "remove it, or the mode Vxlan",
        ),
        (
            KIND,
            json!({ "network": { "uplinks": ["eth0", "eth 1"] } }),
            "spec.network.uplinks[1]",
            "must be the name of a network interface",
        ),
        (
            KIND,
            json!({ "network": { "uplinks": [".."] } }),
            "spec.network.uplinks[0]",
            "must be the name of a network interface",
        ),
        (
            KIND,
            json!({ "network": { "uplinks": ["sixteen-letters-"] } }),
            "spec.network.uplinks[0]",
            "may not be more than 15",
        ),
        (
            KIND,
            json!({ "network": { "uplinks": ["eth0", "eth0"] } }),
            "spec.network.uplinks[1]",
            "Duplicate value",
        ),
        (
            KIND,
            json!({ "network": { "mtu": 1279 } }),
            "spec.network.mtu",
            "greater than or equal to 1280",
        ),
        (
            KIND,
            json!({ "network": { "nonMasqueradeCIDRs": ["10.0.0.0/8", "10.0.0.1"] } }),
            "spec.network.nonMasqueradeCIDRs[1]",
            "must be a network in CIDR notation",
        ),
        (
            KIND,
            json!({ "network": { "nonMasqueradeCIDRs": ["fd00::/129"] } }),
            "spec.network.nonMasqueradeCIDRs[0]",
            "must be a network in CIDR notation",
        ),
        (
            KIND,
            json!({ "capacity": { "flows": 16_777_217 } }),
            "spec.capacity.flows",
            "less than or equal to 16777216",
        ),
        (
            KIND,
            json!({ "observability": { "recordsPerSecond": 0 } }),
            "spec.observability.recordsPerSecond",
            "greater than or equal to 1",
        ),
        (
            KIND,
            json!({ "observability": { "logLevel": "Trace" } }),
            "spec.observability.logLevel",
            r#""Error", "Warn", "Info", "Debug""#,
        ),
        (
            KIND,
            expression(json!({ "key": "zone", "operator": "Is" })),
            "spec.nodeSelector.matchExpressions[0].operator",
            r#""In", "NotIn", "Exists", "DoesNotExist""#,
        ),
        (
            KIND,
            expression(json!({ "key": "zone", "operator": "In" })),
            "spec.nodeSelector.matchExpressions[0]",
            "In and NotIn need values",
        ),
        (
            KIND,
            expression(json!({ "key": "zone", "operator": "Exists", "values": ["a"] })),
            "spec.nodeSelector.matchExpressions[0]",
            "take none",
        ),
        (
            KIND,
            expression(json!({ "key": "a b", "operator": "Exists" })),
            "spec.nodeSelector.matchExpressions[0].key",
            "must be the key of a label",
        ),
        (
            KIND,
            json!({ "nodeSelector": { "matchLabels": { "zone": "a b" } } }),
            "spec.nodeSelector.matchLabels.zone",
            "should match",
        ),
    ]
}

fn flow_log_policies() -> Vec<Invalid> {
    const KIND: &str = "FlowLogPolicy";
    let path = |path: &str| json!({ "sink": { "file": { "path": path } } });
    vec![
        (
            KIND,
            json!({ "verdict": ["Allow"] }),
            "spec.verdict",
            "unknown field",
        ),
        (
            KIND,
            json!({ "verdicts": [] }),
            "spec.verdicts",
            "at least 1 items",
        ),
        (
            KIND,
            json!({ "verdicts": ["Allow", "Allow"] }),
            "spec.verdicts[1]",
            "Duplicate value",
        ),
        (
            KIND,
            json!({ "verdicts": ["Maybe"] }),
            "spec.verdicts[0]",
            r#""Allow", "Deny""#,
        ),
        (
            KIND,
            json!({ "directions": ["Sideways"] }),
            "spec.directions[0]",
            r#""Ingress", "Egress""#,
        ),
        (
            KIND,
            json!({ "sampling": { "allowEvery": 0 } }),
            "spec.sampling.allowEvery",
            "greater than or equal to 1",
        ),
        (
            KIND,
            json!({ "aggregation": { "denySeconds": 301 } }),
            "spec.aggregation.denySeconds",
            "less than or equal to 300",
        ),
        (
            KIND,
            json!({ "budget": { "recordsPerSecond": 0 } }),
            "spec.budget.recordsPerSecond",
            "greater than or equal to 1",
        ),
        (
            KIND,
            json!({ "format": "Xml" }),
            "spec.format",
            r#""PolicyAction""#,
        ),
        (
            KIND,
            path("policy.log"),
            "spec.sink.file.path",
            "must be a file below /var/log/network",
        ),
        (
            KIND,
            path("/etc/passwd"),
            "spec.sink.file.path",
            "must be a file below /var/log/network",
        ),
        (
            KIND,
            path("/var/log/network"),
            "spec.sink.file.path",
            "must be a file below /var/log/network",
        ),
        (
            KIND,
            path("/var/log/network/"),
            "spec.sink.file.path",
            "must be a file below /var/log/network",
        ),
        (
            KIND,
            path("/var/log/network/../messages"),
            "spec.sink.file.path",
            "must be a file below /var/log/network",
        ),
        (
            KIND,
            json!({ "sink": { "file": { "maxFiles": -1 } } }),
            "spec.sink.file.maxFiles",
            "greater than or equal to 0",
        ),
        (
            KIND,
            json!({ "subject": { "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } } }),
            "spec.subject.podSelector.matchExpressions[0]",
            "In and NotIn need values",
        ),
    ]
}

/// Upstream's rules; its own invalid example is the first.
fn cluster_network_policies() -> Vec<Invalid> {
    const KIND: &str = "ClusterNetworkPolicy";
    let rule = |rule: Value| json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": [rule] });
    let to = |peer: Value| rule(json!({ "action": "Deny", "to": [peer] }));
    let protocol = |protocol: Value| {
        rule(json!({ "action": "Deny", "to": [{ "namespaces": {} }], "protocols": [protocol] }))
    };
    let ingress = json!({
        "tier": "Admin", "priority": 1, "subject": { "namespaces": {} },
        "ingress": [{ "action": "NotAllowed", "from": [{ "namespaces": {} }] }],
    });
    vec![
        (
            KIND,
            ingress,
            "spec.ingress[0].action",
            r#""Accept", "Deny", "Pass""#,
        ),
        (
            KIND,
            json!({ "tier": "Admin", "priority": 1001, "subject": { "namespaces": {} } }),
            "spec.priority",
            "less than or equal to 1000",
        ),
        (
            KIND,
            json!({ "tier": "Middle", "priority": 1, "subject": { "namespaces": {} } }),
            "spec.tier",
            r#""Admin", "Baseline""#,
        ),
        (
            KIND,
            json!({ "tier": "Admin", "priority": 1, "subject": {} }),
            "spec.subject",
            "at least 1 properties",
        ),
        (
            KIND,
            json!({ "tier": "Admin", "priority": 1 }),
            "spec.subject",
            "Required value",
        ),
        (
            KIND,
            to(json!({ "networks": ["10.0.0.0"] })),
            "spec.egress[0].to[0].networks[0]",
            "Invalid CIDR format provided",
        ),
        (
            KIND,
            to(json!({ "namespaces": {}, "networks": ["10.0.0.0/8"] })),
            "spec.egress[0].to[0]",
            "must have at most 1 item",
        ),
        (
            KIND,
            to(json!({ "nodes": {} })),
            "spec.egress[0].to[0].nodes",
            "unknown field",
        ),
        (
            KIND,
            protocol(json!({ "tcp": {} })),
            "spec.egress[0].protocols[0].tcp",
            "at least 1 properties",
        ),
        (
            KIND,
            protocol(json!({ "udp": { "destinationPort": { "range": { "start": 2, "end": 1 } } } })),
            "spec.egress[0].protocols[0].udp.destinationPort.range",
            "Start port must be less than End port",
        ),
    ]
}
