//! Every field of a DataplaneConfig reaches the nodes, by the schema that the API server has of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_operator::cluster::{Cluster, Config};
use weir_operator::existing::Existing;
use weir_operator::plan::plan;
use weir_policy::snapshot::Node;

/// Of the spec, what says which nodes and how it weighs.
const NO_SETTINGS: [&str; 2] = ["nodeSelector", "precedence"];

/// `section.field` of each setting in the definition.
fn fields() -> BTreeSet<String> {
    let definition = weir_api::dataplane_config::custom_resource_definition().unwrap();
    let definition = serde_json::to_value(definition).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let sections = spec["properties"].as_object().unwrap();
    let settings = sections
        .iter()
        .filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str()));
    settings
        .flat_map(|(section, schema)| {
            let fields = schema["properties"].as_object().unwrap();
            fields.keys().map(move |field| format!("{section}.{field}"))
        })
        .collect()
}

/// A value of each setting that is not its default.
fn values() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("capacity.flows", json!(2048)),
        ("network.masquerade", json!("Disabled")),
        ("network.mode", json!("Vxlan")),
        ("network.mtu", json!(1400)),
        ("network.nativeRoutes", json!("Disabled")),
        ("network.nonMasqueradeCIDRs", json!(["10.0.0.0/8"])),
        ("network.uplinks", json!(["eth0"])),
        ("observability.logLevel", json!("Debug")),
        ("observability.recordsPerSecond", json!(100)),
        ("policy.establishedConnections", json!("Keep")),
        ("policy.onPodStartTimeout", json!("Fail")),
        ("policy.podStartTimeoutSeconds", json!(20)),
        ("services.socketLoadBalancing", json!("Disabled")),
    ])
}

#[test]
fn each_field_alone_reaches_the_node_and_nothing_else_does() {
    let values = values();
    let known: BTreeSet<String> = values.keys().map(|field| (*field).to_owned()).collect();
    assert_eq!(fields(), known, "this test must know every field");
    for (field, value) in values {
        let (section, name) = field.split_once('.').unwrap();
        let settings = json!({section: {name: value}});
        let mut cluster = Cluster::default();
        cluster.snapshot.nodes.insert("n1".to_owned(), Node::default());
        let config = Config {
            node_selector: Some(Default::default()),
            settings: serde_json::from_value(settings.clone()).unwrap(),
            ..Config::default()
        };
        cluster.dataplane_configs.insert("one".to_owned(), config);
        let wanted = plan(&cluster, &Existing::default());
        let spec = serde_json::to_value(wanted.spec("n1", 1).unwrap()).unwrap();
        assert_eq!(spec["settings"], settings, "{field}");
    }
}
