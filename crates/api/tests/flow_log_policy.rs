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
    let path = json!({ "type": "string", "minLength": 2, "maxLength": 4096, "pattern": r"^/[^\x00]+$" });
    assert_eq!(property("sink.file.path"), path);
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
    assert_eq!(keywords(spec, "default"), Vec::<String>::new());
    assert_eq!(keywords(spec, "nullable"), Vec::<String>::new());
    assert_eq!(spec.get("required"), None);
}

#[test]
fn every_field_is_explained() {
    let definition = custom_resource_definition().expect("a definition");
    let definition = serde_json::to_value(definition).expect("serializable");
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut unexplained = Vec::new();
    collect_unexplained(spec, "spec", &mut unexplained);
    assert_eq!(unexplained, Vec::<String>::new());
}

#[test]
fn the_definition_is_named_after_its_kind() {
    use kube::CustomResourceExt as _;
    assert_eq!(FlowLogPolicy::crd_name(), "flowlogpolicies.dataplane.weir.dev");
    assert_eq!(FlowLogPolicy::crd().spec.scope, "Cluster");
}

fn collect_unexplained(schema: &Value, path: &str, unexplained: &mut Vec<String>) {
    if schema.get("description").is_none() {
        unexplained.push(path.to_owned());
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        collect_unexplained(property, &format!("{path}.{name}"), unexplained);
    }
}

/// Where in a schema a keyword stands.
fn keywords(schema: &Value, keyword: &str) -> Vec<String> {
    match schema {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let own = (key == keyword && !value.is_object()).then(|| key.clone());
                own.into_iter().chain(
                    keywords(value, keyword)
                        .into_iter()
                        .map(move |path| format!("{key}.{path}")),
                )
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| keywords(item, keyword)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
