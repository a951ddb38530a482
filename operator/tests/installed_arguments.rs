//! The operator as the chart starts it: its arguments and variables are those that the program takes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use serde::Deserialize as _;
use serde_json::Value;
use weir_operator::args::Arguments;

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The container of the operator in `config/default`, which the chart makes.
fn container() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/default/weir.yaml");
    let text = std::fs::read_to_string(&path).expect("the manifest");
    let objects = serde_yaml_ng::Deserializer::from_str(&text);
    let objects = objects.map(|object| Value::deserialize(object).expect("YAML"));
    let mut deployments = objects.filter(|object| object["kind"] == "Deployment");
    let deployment = deployments.next().expect("a Deployment");
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn what_is_installed_calls_the_operator_as_it_is() {
    let container = container();
    let variables: BTreeSet<&str> = container["env"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| text_of(&variable["name"]))
        .collect();
    let mut words = vec!["weir-operator".to_owned()];
    for argument in container["args"].as_array().expect("arguments") {
        let argument = text_of(argument).to_owned();
        // As the kubelet does, every variable by its name.
        words.push(
            variables
                .iter()
                .fold(argument, |text, name| text.replace(&format!("$({name})"), name)),
        );
    }
    let command = Arguments::command();
    let of_clap = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str());
    let of_clap: BTreeSet<&str> = of_clap.collect();
    assert_eq!(of_clap, BTreeSet::from(["POD_NAME", "POD_NAMESPACE", "WEIR_LOG"]));
    assert!(of_clap.is_subset(&variables), "{variables:?}");

    // Which replica it is comes by a variable.
    words.push("--identity=POD_NAME".to_owned());
    let parsed = Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert_eq!(parsed.namespace, "POD_NAMESPACE");
    let port = container["ports"][0]["containerPort"].as_u64().expect("a port");
    assert_eq!(
        parsed.metrics_address,
        SocketAddr::from(([0, 0, 0, 0], u16::try_from(port).expect("a port")))
    );
}
