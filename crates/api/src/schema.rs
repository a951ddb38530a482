//! Schemas that are not derived, and what is done to those that are.
//!
//! The `metav1` types are as controller-gen writes them: k8s-openapi's own schemas lack the list markers and the limits
//! that upstream's CustomResourceDefinitions carry.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// A `metav1.LabelSelector`.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchExpressions": {
                "description": "matchExpressions is a list of label selector requirements. The requirements are ANDed.",
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "description": "A label selector requirement is a selector that contains values, a key, and an operator that relates the key and values.",
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "key is the label key that the selector applies to.",
                            "type": "string"
                        },
                        "operator": {
                            "description": "operator represents a key's relationship to a set of values. Valid operators are In, NotIn, Exists and DoesNotExist.",
                            "type": "string"
                        },
                        "values": {
                            "description": "values is an array of string values. If the operator is In or NotIn, the values array must be non-empty. If the operator is Exists or DoesNotExist, the values array must be empty.",
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string" }
                        }
                    }
                }
            },
            "matchLabels": {
                "description": "matchLabels is a map of {key,value} pairs. A single {key,value} in the matchLabels map is equivalent to an element of matchExpressions, whose key field is \"key\", the operator is \"In\", and the values array contains only \"value\". The requirements are ANDed.",
                "type": "object",
                "additionalProperties": { "type": "string" }
            }
        }
    })
}

/// A [`label_selector`] of a kind of our own: what the API server can know to be wrong, it refuses.
///
/// Keys of `matchLabels` are not looked at: the API server refuses rules about strings whose length it cannot bound.
pub(crate) fn checked_label_selector(generator: &mut SchemaGenerator) -> Schema {
    let mut selector = label_selector(generator).to_value();
    let expressions = &mut selector["properties"]["matchExpressions"];
    expressions["maxItems"] = json!(64);
    let requirement = &mut expressions["items"];
    requirement["x-kubernetes-validations"] = json!([{
        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
        "message": "In and NotIn need values; Exists and DoesNotExist take none"
    }]);
    let key = &mut requirement["properties"]["key"];
    key["maxLength"] = json!(317);
    key["x-kubernetes-validations"] = json!([{
        "rule": r"self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",
        "message": "must be the key of a label, like topology.kubernetes.io/zone"
    }]);
    requirement["properties"]["operator"]["enum"] = json!(["In", "NotIn", "Exists", "DoesNotExist"]);
    let values = &mut requirement["properties"]["values"];
    values["maxItems"] = json!(256);
    values["items"] = label_value();
    let labels = &mut selector["properties"]["matchLabels"];
    labels["maxProperties"] = json!(64);
    labels["additionalProperties"] = label_value();
    Schema::try_from(selector).unwrap_or_default()
}

fn label_value() -> Value {
    json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
    })
}

/// A list of `metav1.Condition`, one a type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "Condition contains details for one aspect of the current state of this API Resource.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "lastTransitionTime is the last time the condition transitioned from one status to another.",
                    "type": "string",
                    "format": "date-time"
                },
                "message": {
                    "description": "message is a human readable message indicating details about the transition.",
                    "type": "string",
                    "maxLength": 32768
                },
                "observedGeneration": {
                    "description": "observedGeneration represents the .metadata.generation that the condition was set based upon.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0
                },
                "reason": {
                    "description": "reason contains a programmatic identifier indicating the reason for the condition's last transition.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "status": {
                    "description": "status of the condition, one of True, False, Unknown.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"]
                },
                "type": {
                    "description": "type of condition in CamelCase or in foo.example.com/CamelCase.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
                }
            }
        }
    })
}

/// A list of objects of any shape.
pub(crate) fn free_form_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

/// An object of any shape. It has one owner, as whole: otherwise the API server keeps a record of who wrote each field.
pub(crate) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// The definition of a kind, its schema rounded off to what the API server takes and controller-gen would write, with
/// the fields that every object has.
pub(crate) fn round_off(definition: CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut definition = serde_json::to_value(definition)?;
    let root = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    round_off_schema(root);
    root["properties"]["apiVersion"] = json!({
        "description": "APIVersion defines the versioned schema of this representation of an object.",
        "type": "string"
    });
    root["properties"]["kind"] = json!({
        "description": "Kind is a string value representing the REST resource this object represents.",
        "type": "string"
    });
    root["properties"]["metadata"] = json!({ "type": "object" });
    root["required"] = json!(["metadata", "spec"]);
    Ok(definition)
}

/// Rounds off a schema and those in it.
fn round_off_schema(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    // The API server would write the defaults into the objects that people apply, and GitOps tools would report the
    // difference for ever.
    schema.remove("default");
    schema.remove("title");
    join_lines(schema);
    forbid_null(schema);
    bound_unsigned(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(round_off_schema);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            round_off_schema(inner);
        }
    }
}

/// A description has the line breaks of the source, and `kubectl explain` breaks lines itself. Those between paragraphs
/// stay.
fn join_lines(schema: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let paragraphs: Vec<String> = text
            .split("\n\n")
            .map(|paragraph| paragraph.replace('\n', " "))
            .collect();
        *text = paragraphs.join("\n\n");
    }
}

/// kube lets every `Option` be null. An absent field says the same, and is what people write.
fn forbid_null(schema: &mut Map<String, Value>) {
    schema.remove("nullable");
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

/// The API has signed formats only, and would let a larger number pass than a reader can hold.
fn bound_unsigned(schema: &mut Map<String, Value>) {
    if schema.get("format") == Some(&json!("uint32")) {
        schema.insert("format".to_owned(), json!("int64"));
        schema.insert("maximum".to_owned(), json!(u32::MAX));
    }
}
