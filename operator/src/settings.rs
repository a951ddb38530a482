//! From DataplaneConfigs to the settings of each node.
//!
//! 1. A config counts on the nodes that it selects, with those of its fields that are valid.
//! 2. Of several that set a field on a node, the one with the highest precedence wins.
//! 3. Of several with that precedence the oldest wins, then the one whose name comes first.

mod validate;

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Selector, SelectorExt as _};
use serde_json::{Map, Value};
use weir_api::DataplaneSettings;
use weir_policy::snapshot::Labels;

use crate::cluster::{Cluster, Config};

/// A field of settings, like `network.mode`.
pub type Field = String;

/// What the configs come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Of each node, as JSON.
    pub nodes: BTreeMap<String, Value>,
    pub configs: BTreeMap<String, ConfigOutcome>,
}

/// What became of one config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigOutcome {
    /// The nodes that it selects.
    pub nodes: BTreeSet<String>,
    /// By node, the fields in which it wins.
    pub wins: BTreeMap<String, BTreeSet<Field>>,
    pub problems: Vec<ConfigProblem>,
    pub conflicts: BTreeSet<Conflict>,
}

/// A field that is not in force, though the config sets it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// Like `spec.network.nonMasqueradeCIDRs[1]`.
    pub field: String,
    /// The condition's reason.
    pub reason: &'static str,
    pub message: String,
}

/// Another config of the same precedence sets the field to another value, and wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Like `spec.network.mode`.
    pub field: String,
    pub winner: String,
}

/// A config, ready to be merged.
struct Entry<'a> {
    name: &'a str,
    config: &'a Config,
    selector: Option<Selector>,
    fields: BTreeMap<Field, Value>,
}

/// Merges the configs for every node.
#[must_use]
pub fn settings(cluster: &Cluster) -> Settings {
    let mut outcome = Settings::default();
    let mut entries: Vec<Entry<'_>> = cluster
        .dataplane_configs
        .iter()
        .map(|(name, config)| entry(name, config, &mut outcome))
        .collect();
    entries.sort_by_key(|entry| {
        let written = &entry.config.written;
        (-i64::from(entry.config.precedence), written.created, entry.name)
    });
    for (node, facts) in &cluster.snapshot.nodes {
        let merged = merge(node, &facts.labels, &entries, &mut outcome.configs);
        outcome.nodes.insert(node.clone(), merged);
    }
    outcome
}

fn entry<'a>(name: &'a str, config: &'a Config, outcome: &mut Settings) -> Entry<'a> {
    let mut valid = config.settings.clone();
    let mut problems: Vec<ConfigProblem> = config
        .written
        .undecodable
        .iter()
        .map(|part| ConfigProblem {
            field: part.field.clone(),
            reason: "Undecodable",
            message: part.message.clone(),
        })
        .collect();
    problems.extend(validate::validate(&mut valid, config.precedence));
    let selector = config.node_selector.clone().map(Selector::try_from).transpose();
    let selector = selector.unwrap_or_else(|error| {
        problems.push(ConfigProblem {
            field: "spec.nodeSelector".to_owned(),
            reason: "InvalidSelector",
            message: format!("{error}; no node is selected"),
        });
        None
    });
    let found = outcome.configs.entry(name.to_owned()).or_default();
    found.problems = problems;
    Entry {
        name,
        config,
        selector,
        fields: fields(&valid),
    }
}

/// The fields that are set, by section and name.
fn fields(settings: &DataplaneSettings) -> BTreeMap<Field, Value> {
    let Ok(Value::Object(sections)) = serde_json::to_value(settings) else {
        return BTreeMap::new();
    };
    let sections = sections.into_iter();
    sections
        .flat_map(|(section, fields)| {
            let fields = fields.as_object().cloned().unwrap_or_default();
            fields
                .into_iter()
                .map(move |(field, value)| (format!("{section}.{field}"), value))
        })
        .collect()
}

fn merge(
    node: &str,
    labels: &Labels,
    entries: &[Entry<'_>],
    outcomes: &mut BTreeMap<String, ConfigOutcome>,
) -> Value {
    let selects = |entry: &&Entry<'_>| {
        entry
            .selector
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
    };
    let selecting: Vec<&Entry<'_>> = entries.iter().filter(selects).collect();
    let mut merged = BTreeMap::<&str, &Value>::new();
    // The first of each precedence that sets a field.
    let mut firsts = BTreeMap::<(i32, &str), (&str, &Value)>::new();
    for entry in &selecting {
        let outcome = outcomes.entry(entry.name.to_owned()).or_default();
        outcome.nodes.insert(node.to_owned());
        for (field, value) in &entry.fields {
            if !merged.contains_key(field.as_str()) {
                merged.insert(field, value);
                let wins = outcome.wins.entry(node.to_owned()).or_default();
                wins.insert(field.clone());
            }
            let place = (entry.config.precedence, field.as_str());
            let (winner, winning) = *firsts.entry(place).or_insert((entry.name, value));
            if winning != value {
                outcome.conflicts.insert(Conflict {
                    field: format!("spec.{field}"),
                    winner: winner.to_owned(),
                });
            }
        }
    }
    nested(&merged)
}

fn nested(fields: &BTreeMap<&str, &Value>) -> Value {
    let mut sections = Map::new();
    for (field, value) in fields {
        let (section, name) = field.split_once('.').unwrap_or((field, ""));
        let section = sections
            .entry(section)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(section) = section {
            section.insert(name.to_owned(), (*value).clone());
        }
    }
    Value::Object(sections)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;
    use weir_policy::snapshot::Node;

    use super::*;
    use crate::cluster::Written;

    fn config(precedence: i32, created: i64, selector: &[(&str, &str)], settings: Value) -> Config {
        let labels = selector
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config {
            written: Written {
                created: Timestamp::from_second(created).ok(),
                ..Written::default()
            },
            node_selector: Some(LabelSelector {
                match_labels: Some(labels.collect()),
                ..LabelSelector::default()
            }),
            precedence,
            settings: serde_json::from_value(settings).expect("these are settings"),
        }
    }

    fn cluster(configs: &[(&str, Config)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("n1", "a"), ("n2", "b")] {
            let node = Node {
                labels: Labels::from([("zone".to_owned(), zone.to_owned())]),
                ..Node::default()
            };
            cluster.snapshot.nodes.insert(name.to_owned(), node);
        }
        let configs = configs
            .iter()
            .map(|(name, config)| ((*name).to_owned(), config.clone()));
        cluster.dataplane_configs = configs.collect();
        cluster
    }

    #[test]
    fn without_configs_nothing_is_set() {
        let settings = settings(&cluster(&[]));
        let none = json!({});
        assert_eq!(
            settings.nodes,
            BTreeMap::from([("n1".to_owned(), none.clone()), ("n2".to_owned(), none)])
        );
    }

    #[test]
    fn fields_are_merged_by_precedence() {
        let all = config(0, 1, &[], json!({"network": {"mtu": 1400, "mode": "Vxlan"}}));
        let zone = config(
            10,
            2,
            &[("zone", "a")],
            json!({"network": {"mtu": 9000}, "capacity": {"flows": 2048}}),
        );
        let settings = settings(&cluster(&[("all", all), ("zone", zone)]));
        assert_eq!(
            settings.nodes["n1"],
            json!({"network": {"mtu": 9000, "mode": "Vxlan"}, "capacity": {"flows": 2048}})
        );
        assert_eq!(
            settings.nodes["n2"],
            json!({"network": {"mtu": 1400, "mode": "Vxlan"}})
        );
        let of = |fields: &[&str]| {
            fields
                .iter()
                .map(|field| (*field).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            settings.configs["all"].wins,
            BTreeMap::from([
                ("n1".to_owned(), of(&["network.mode"])),
                ("n2".to_owned(), of(&["network.mode", "network.mtu"]))
            ])
        );
        assert!(
            settings
                .configs
                .values()
                .all(|outcome| outcome.conflicts.is_empty())
        );
    }

    #[test]
    fn of_equals_the_older_wins_and_the_younger_is_told() {
        let young = config(5, 20, &[], json!({"network": {"mtu": 1400}}));
        let old = config(5, 10, &[("zone", "a")], json!({"network": {"mtu": 9000}}));
        let settings = settings(&cluster(&[("a-young", young), ("b-old", old)]));
        assert_eq!(settings.nodes["n1"], json!({"network": {"mtu": 9000}}));
        assert_eq!(settings.nodes["n2"], json!({"network": {"mtu": 1400}}));
        let conflict = Conflict {
            field: "spec.network.mtu".to_owned(),
            winner: "b-old".to_owned(),
        };
        assert_eq!(settings.configs["a-young"].conflicts, BTreeSet::from([conflict]));
        assert_eq!(settings.configs["b-old"].conflicts, BTreeSet::new());
    }

    #[test]
    fn equal_values_and_separate_nodes_are_no_conflict() {
        let one = config(5, 1, &[("zone", "a")], json!({"network": {"mtu": 1400}}));
        let two = config(5, 2, &[("zone", "b")], json!({"network": {"mtu": 9000}}));
        let three = config(5, 3, &[("zone", "b")], json!({"network": {"mtu": 9000}}));
        let settings = settings(&cluster(&[("one", one), ("two", two), ("three", three)]));
        assert!(
            settings
                .configs
                .values()
                .all(|outcome| outcome.conflicts.is_empty())
        );
    }

    #[test]
    fn an_invalid_field_is_left_out() {
        let broken = json!({"network": {"mtu": 1400, "nonMasqueradeCIDRs": ["10.0.0.0/8", "ten/8"]}});
        let settings = settings(&cluster(&[("one", config(0, 1, &[], broken))]));
        assert_eq!(settings.nodes["n1"], json!({"network": {"mtu": 1400}}));
        let problems: Vec<(&str, &str)> = settings.configs["one"]
            .problems
            .iter()
            .map(|problem| (problem.field.as_str(), problem.reason))
            .collect();
        assert_eq!(problems, [("spec.network.nonMasqueradeCIDRs[1]", "InvalidCidr")]);
    }
}
