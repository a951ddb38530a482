//! FlowLogPolicy: what an empty spec means, and that the API server is not told to write it out.

use serde_json::{Value, json};
use weir_api::flow_log_policy::{
    Aggregation, Budget, FileSink, LogDirection, LogFormat, LogVerdict, Sampling, Sink,
    custom_resource_definition,
};
use weir_api::{FlowLogPolicy, FlowLogPolicySpec};

#[test]
fn an_empty_spec_logs_everything() {
    let expected = FlowLogPolicySpec {
        subject: None,
        verdicts: vec![LogVerdict::Allow, LogVerdict::Deny],
        directions: vec![LogDirection::Ingress, LogDirection::Egress],
        sampling: Sampling { allow_every: 1 },
        aggregation: Aggregation { deny_seconds: 5 },
        budget: Budget {
            records_per_second: 500,
        },
        format: LogFormat::PolicyAction,
        sink: Sink {
            file: FileSink {
                path: "/var/log/network/policy_action.log".to_owned(),
                max_size_megabytes: 10,
                max_files: 5,
            },
        },
    };
    let read = |spec: Value| serde_json::from_value::<FlowLogPolicySpec>(spec).expect("valid");
    assert_eq!(read(json!({})), expected);
    assert_eq!(FlowLogPolicySpec::default(), expected);
    let nested = json!({ "sampling": {}, "aggregation": {}, "budget": {}, "sink": { "file": {} } });
    assert_eq!(read(nested), expected);
}

#[test]
fn the_definition_limits_values_and_has_no_defaults() {
    let definition = custom_resource_definition().expect("a definition");
    let definition = serde_json::to_value(definition).expect("serializable");
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let property = |path: &str| {
        let steps = path.split('.');
        let mut schema = steps
            .fold(spec, |schema, step| &schema["properties"][step])
            .clone();
        schema.as_object_mut().expect("a schema").remove("description");
        schema
    };
    let integer = |least: f64, most: f64| json!({ "type": "integer", "format": "int32", "minimum": least, "maximum": most });
    assert_eq!(property("sampling.allowEvery"), integer(1.0, 65535.0));
    assert_eq!(property("aggregation.denySeconds"), integer(0.0, 300.0));
    assert_eq!(property("budget.recordsPerSecond"), integer(1.0, 1_000_000.0));
    assert_eq!(property("sink.file.maxSizeMegabytes"), integer(1.0, 10240.0));
    assert_eq!(property("sink.file.maxFiles"), integer(0.0, 1000.0));
    assert_eq!(
        property("format"),
        json!({ "type": "string", "enum": ["PolicyAction"] })
    );
    let path = property("sink.file.path");
    assert_eq!(
        (&path["type"], &path["maxLength"]),
        (&json!("string"), &json!(255))
    );
    let rule = path["x-kubernetes-validations"][0]["rule"]
        .as_str()
        .expect("a rule");
    assert!(rule.contains("^/var/log/network("), "{rule}");
    for (name, names) in [
        ("verdicts", ["Allow", "Deny"]),
        ("directions", ["Ingress", "Egress"]),
    ] {
        let mut schema = property(name);
        schema["items"]
            .as_object_mut()
            .expect("a schema")
            .remove("description");
        let expected = json!({
            "type": "array",
            "x-kubernetes-list-type": "set",
            "minItems": 1,
            "maxItems": 2,
            "items": { "type": "string", "enum": names },
        });
        assert_eq!(schema, expected, "{name}");
    }
    assert_eq!(spec.get("required"), None);
}

#[test]
fn the_definition_is_named_after_its_kind() {
    use kube::CustomResourceExt as _;
    assert_eq!(FlowLogPolicy::crd_name(), "flowlogpolicies.dataplane.weir.dev");
    assert_eq!(FlowLogPolicy::crd().spec.scope, "Cluster");
}
