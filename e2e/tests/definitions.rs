//! The CustomResourceDefinitions, against a real API server: what it refuses and how it says so, that it changes nothing
//! of what people apply, and that it explains every kind.

mod api_bed;
#[path = "definitions/invalid.rs"]
mod invalid;

use api_bed::{Bed, checkout};
use serde_json::{Value, json};

/// Kinds that people write or read.
const KINDS: [&str; 7] = [
    "clusternetworkpolicies",
    "dataplaneconfigs",
    "flowlogpolicies",
    "policystatuses",
    "nodedataplanes",
    "identityslices",
    "addressslices",
];

#[test]
fn definitions_hold_on_an_api_server() {
    let bed = Bed::start();
    let mut wrong = Vec::new();
    wrong.extend(invalid_objects_that_pass_or_are_not_explained(&bed));
    wrong.extend(valid_objects_that_change_when_applied(&bed));
    wrong.extend(conflicts_with_our_status(&bed));
    wrong.extend(kinds_that_are_not_explained(&bed));
    wrong.extend(names_at_their_limits(&bed));
    wrong.extend(categories_and_short_names(&bed));
    assert_eq!(wrong, Vec::<String>::new());
}

fn invalid_objects_that_pass_or_are_not_explained(bed: &Bed) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, spec, field, says) in invalid::specs() {
        let object = object(kind, "invalid", spec).to_string();
        let answer = bed.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
        if answer.succeeded() || !answer.err.contains(field) || !answer.err.contains(says) {
            lines.push(format!("{object}: expected {field} and {says:?}: {answer:?}"));
        }
    }
    lines
}

/// The samples, an empty spec, and one with every field.
fn valid_objects() -> Vec<Value> {
    let selector = json!({
        "matchLabels": { "kubernetes.io/os": "linux" },
        "matchExpressions": [{ "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"] }],
    });
    let every_setting = json!({
        "nodeSelector": selector,
        "precedence": -1000,
        "services": { "socketLoadBalancing": "Disabled" },
        "policy": { "establishedConnections": "Keep", "podStartTimeoutSeconds": 110, "onPodStartTimeout": "Fail" },
        "network": {
            "mode": "Native", "nativeRoutes": "Disabled", "uplinks": ["eth0", "bond0.100"], "mtu": 9000,
            "masquerade": "Enabled", "nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"],
        },
        "capacity": { "flows": 16_777_216 },
        "observability": { "recordsPerSecond": 1, "logLevel": "Debug" },
    });
    let every_log_field = json!({
        "subject": { "namespaceSelector": selector, "podSelector": {} },
        "verdicts": ["Deny"], "directions": ["Egress", "Ingress"], "sampling": { "allowEvery": 10 },
        "aggregation": { "denySeconds": 0 }, "budget": { "recordsPerSecond": 1 }, "format": "PolicyAction",
        "sink": { "file": { "path": "/var/log/network/team-a/deny.log", "maxSizeMegabytes": 1, "maxFiles": 0 } },
    });
    vec![
        object("DataplaneConfig", "empty", json!({})),
        object("DataplaneConfig", "every-field", every_setting),
        object(
            "DataplaneConfig",
            "tunnel",
            json!({ "network": { "mode": "Vxlan" } }),
        ),
        object("FlowLogPolicy", "empty", json!({})),
        object("FlowLogPolicy", "every-field", every_log_field),
        object(
            "NodeDataplane",
            "n1",
            json!({
                "addressBook": 1, "relevance": { "podLabels": ["app"] }, "covers": [1, 4_294_967_295_u32],
                "policies": [{ "any": { "shape": [1, { "b": true }] } }], "flowLogs": { "all": { "any": 1 } },
                "settings": { "network": { "mode": "Vxlan" } },
            }),
        ),
        object("IdentitySlice", "head", json!({ "revision": 1, "lastNumber": 7 })),
        object(
            "IdentitySlice",
            "s",
            json!({ "revision": 1, "namespaces": [{ "name": "a", "labels": { "b": "c" }, "identities": [
            { "number": 1, "podLabels": { "app": "x" }, "namedPorts": { "http": ["TCP/80"] } },
        ] }] }),
        ),
        object(
            "AddressSlice",
            "s",
            json!({ "revision": 1, "namespace": "a", "pods": [
            { "name": "p", "node": "n", "identity": 1, "addresses": ["10.0.0.1", "fd00::1"] },
        ] }),
        ),
        object("PolicyStatus", "p", json!({ "policyUID": "x" })),
    ]
}

fn valid_objects_that_change_when_applied(bed: &Bed) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, arguments: &[&str], input: &str| {
        for verb in [
            &["apply"][..],
            &["diff"],
            &["apply", "--server-side", "--field-manager=other"],
            &["diff", "--server-side", "--field-manager=other"],
        ] {
            let answer = bed.kubectl_with(&[verb, arguments].concat(), input);
            if !answer.succeeded() {
                lines.push(format!("{what}: kubectl {}: {answer:?}", verb.join(" ")));
            }
        }
    };
    for object in valid_objects() {
        let object = object.to_string();
        check(&object, &["-f", "-"], &object);
    }
    for kind in [
        // Where the others are.
        "namespace",
        "networkpolicy",
        "clusternetworkpolicy",
        "flowlogpolicy",
        "dataplaneconfig",
    ] {
        for path in samples_of(kind) {
            check(&path, &["-f", &path], "");
        }
    }
    lines
}

fn samples_of(kind: &str) -> Vec<String> {
    let folders = ["config/samples", "config/samples/cluster"].map(|folder| checkout().join(folder));
    let mut paths: Vec<String> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("samples"))
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .filter(|path| path.ends_with(&format!("-{kind}.yaml")))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is no sample of a {kind}");
    paths
}

/// We write statuses as one field manager; who applies specs as another must not notice.
fn conflicts_with_our_status(bed: &Bed) -> Vec<String> {
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    });
    let mut lines = Vec::new();
    for (kind, spec) in [
        ("DataplaneConfig", json!({ "precedence": 1 })),
        ("FlowLogPolicy", json!({ "verdicts": ["Deny"] })),
        (
            "ClusterNetworkPolicy",
            json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} } }),
        ),
    ] {
        let mut desired = object(kind, "two-managers", spec);
        let mut status = desired.clone();
        let fields = status.as_object_mut().expect("an object");
        fields.remove("spec");
        fields.insert("status".to_owned(), json!({ "conditions": [condition] }));
        let apply = ["apply", "--server-side", "--field-manager=argocd", "-f", "-"];
        let report = [
            "apply",
            "--server-side",
            "--subresource=status",
            "--field-manager=weir-operator",
            "-f",
            "-",
        ];
        let diff = ["diff", "--server-side", "--field-manager=argocd", "-f", "-"];
        let mut steps = vec![
            (&apply[..], desired.to_string()),
            (&report, status.to_string()),
            (&diff, desired.to_string()),
        ];
        desired["metadata"]["labels"] = json!({ "team": "a" });
        steps.extend([
            (&apply[..], desired.to_string()),
            (&report, status.to_string()),
            (&diff, desired.to_string()),
        ]);
        for (arguments, input) in steps {
            let answer = bed.kubectl_with(arguments, &input);
            if !answer.succeeded() {
                lines.push(format!("{kind}: {}: {answer:?}", arguments.join(" ")));
            }
        }
    }
    lines
}

fn kinds_that_are_not_explained(bed: &Bed) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in KINDS {
        for path in [kind.to_owned(), format!("{kind}.spec")] {
            let answer = bed.kubectl(&["explain", &path]);
            let text = answer
                .out
                .split_once("DESCRIPTION:")
                .map_or("", |(_, text)| text.trim());
            if !answer.succeeded() || text.is_empty() || text.starts_with("<empty>") {
                lines.push(format!("{path}: {answer:?}"));
            }
        }
    }
    lines
}

fn names_at_their_limits(bed: &Bed) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in ["DataplaneConfig", "FlowLogPolicy"] {
        for (length, says) in [(253, ""), (254, "metadata.name")] {
            let object = object(kind, &"n".repeat(length), json!({})).to_string();
            let answer = bed.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
            if answer.succeeded() != says.is_empty() || !answer.err.contains(says) {
                lines.push(format!("{kind} with a name of {length}: {answer:?}"));
            }
        }
    }
    lines
}

fn categories_and_short_names(bed: &Bed) -> Vec<String> {
    let words = [
        (
            "weir",
            vec![
                "dataplaneconfigs",
                "flowlogpolicies",
                "nodedataplanes",
                "policystatuses",
            ],
        ),
        ("weir-internal", vec!["addressslices", "identityslices"]),
    ];
    let mut lines = Vec::new();
    for (category, expected) in words {
        let arguments = ["api-resources", "--categories", category, "-o", "name"];
        let found = bed.kubectl(&arguments).expect("the kinds");
        let mut found: Vec<&str> = found
            .lines()
            .map(|line| line.split('.').next().unwrap_or(line))
            .collect();
        found.sort_unstable();
        if found != expected {
            lines.push(format!("{category}: {found:?}"));
        }
    }
    for word in ["cnp", "dpc", "flp", "ndp", "npstatus"] {
        let answer = bed.kubectl(&["get", word, "-A"]);
        if !answer.succeeded() {
            lines.push(format!("{word}: {answer:?}"));
        }
    }
    lines
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let version = match kind {
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "dataplane.weir.dev/v1alpha1",
    };
    let mut metadata = json!({ "name": name });
    if kind == "PolicyStatus" {
        metadata["namespace"] = json!("default");
    }
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
}
