//! What holds of the definition of every kind of our own.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};
use weir_api::{
    address_slice, dataplane_config, flow_log_policy, identity_slice, node_dataplane, policy_status,
};

fn definitions() -> Vec<CustomResourceDefinition> {
    [
        address_slice::custom_resource_definition(),
        dataplane_config::custom_resource_definition(),
        flow_log_policy::custom_resource_definition(),
        identity_slice::custom_resource_definition(),
        node_dataplane::custom_resource_definition(),
        policy_status::custom_resource_definition(),
    ]
    .map(|definition| definition.expect("a definition"))
    .into()
}

#[test]
fn names_scopes_and_subresources() {
    let found: Vec<String> = definitions().iter().map(described).collect();
    let expected = [
        "addressslices.dataplane.weir.dev Cluster [] [weir-internal]",
        "dataplaneconfigs.dataplane.weir.dev Cluster [dpc] [weir] status",
        "flowlogpolicies.dataplane.weir.dev Cluster [flp] [weir] status",
        "identityslices.dataplane.weir.dev Cluster [] [weir-internal]",
        "nodedataplanes.dataplane.weir.dev Cluster [ndp] [weir] status",
        "policystatuses.dataplane.weir.dev Namespaced [npstatus] [weir] status",
    ];
    assert_eq!(found, expected);
}

fn described(definition: &CustomResourceDefinition) -> String {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default().join(",");
    let spec = &definition.spec;
    let status = spec.versions[0].subresources.as_ref().map_or("", |_| " status");
    format!(
        "{} {} [{}] [{}]{status}",
        definition.metadata.name.clone().unwrap_or_default(),
        spec.scope,
        words(&spec.names.short_names),
        words(&spec.names.categories),
    )
}

#[test]
fn columns() {
    let found: Vec<String> = definitions().iter().map(columns_of).collect();
    let expected = [
        "Namespace Revision Age",
        "Precedence Accepted Programmed Degraded Nodes Message+ Age",
        "Accepted Programmed Degraded Nodes Message+ Age",
        "Revision Age",
        "Programmed Degraded Policies Pods Version Message+ Age",
        "Accepted Programmed Nodes Message+ Age",
    ];
    assert_eq!(found, expected);
}

/// With a `+` those that only `-o wide` shows.
fn columns_of(definition: &CustomResourceDefinition) -> String {
    let columns = definition.spec.versions[0].additional_printer_columns.clone();
    let names: Vec<String> = columns
        .unwrap_or_default()
        .into_iter()
        .map(|column| format!("{}{}", column.name, column.priority.map_or("", |_| "+")))
        .collect();
    names.join(" ")
}

#[test]
fn every_field_of_every_kind_is_explained() {
    let unexplained = fields(|schema| !schema.contains_key("description"));
    // The lists' items and the objects of any shape are explained by the field that holds them.
    assert_eq!(unexplained, Vec::<String>::new());
}

#[test]
fn descriptions_have_no_line_breaks_of_the_source_and_no_links_of_rustdoc() {
    let broken = fields(|schema| {
        let text = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let lines = text.replace("\n\n", "");
        lines.contains('\n') || text.contains("](") || text.contains("crate::") || text.contains("weir_")
    });
    assert_eq!(broken, Vec::<String>::new());
}

/// Defaults would be written into what people apply; null and uint32 are not of the API.
#[test]
fn nothing_is_defaulted_null_or_of_an_unknown_format() {
    let odd = fields(|schema| {
        let has_null = schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|words| words.contains(&Value::Null));
        let format = schema.get("format").and_then(Value::as_str).unwrap_or("int32");
        has_null
            || ["default", "nullable", "title", "uniqueItems"]
                .iter()
                .any(|keyword| schema.contains_key(*keyword))
            || !["int32", "int64", "date-time"].contains(&format)
    });
    assert_eq!(odd, Vec::<String>::new());
}

/// The API server refuses a schema without types, and would drop fields of an object without properties.
#[test]
fn everything_has_a_type_and_every_object_its_fields() {
    let odd = fields(|schema| {
        let open = [
            "properties",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
        ];
        !schema.contains_key("type")
            || schema["type"] == json!("object") && !open.iter().any(|keyword| schema.contains_key(*keyword))
            || schema["type"] == json!("array") && !schema.contains_key("items")
    });
    assert_eq!(odd, Vec::<String>::new());
}

/// Every rule tells what to do, and is on a string or list whose length is bounded: its cost is, therefore.
#[test]
fn every_rule_has_a_message() {
    let rules = fields(|schema| schema.contains_key("x-kubernetes-validations"));
    let silent = fields(|schema| {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        rules
            .into_iter()
            .flatten()
            .any(|rule| rule["message"].as_str().is_none_or(str::is_empty))
    });
    assert!(
        rules
            .iter()
            .any(|path| path == "DataplaneConfig.spec.network.uplinks[]"),
        "{rules:?}"
    );
    assert_eq!(silent, Vec::<String>::new());
}

/// Paths of the fields of spec and status, of all kinds, of which a predicate holds.
fn fields(is_odd: impl Fn(&Map<String, Value>) -> bool) -> Vec<String> {
    let mut paths = Vec::new();
    for definition in definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).expect("serializable");
        let root = &schema["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            if root.get(part).is_some() {
                let path = format!("{}.{part}", definition.spec.names.kind);
                collect(&root[part], &path, false, &is_odd, &mut paths);
            }
        }
    }
    paths
}

/// An item of a list or a value of a map need not be explained beside the list or map.
fn collect(
    schema: &Value,
    path: &str,
    is_item: bool,
    is_odd: &impl Fn(&Map<String, Value>) -> bool,
    paths: &mut Vec<String>,
) {
    let Value::Object(map) = schema else { return };
    let mut seen = map.clone();
    if is_item {
        seen.entry("description").or_insert_with(|| json!("as its list"));
    }
    if is_odd(&seen) {
        paths.push(path.to_owned());
    }
    let properties = map.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        collect(property, &format!("{path}.{name}"), false, is_odd, paths);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = map.get(keyword) {
            collect(inner, &format!("{path}[]"), true, is_odd, paths);
        }
    }
}
