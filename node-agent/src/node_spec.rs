//! A NodeDataplane's spec, read as what the policy crate calls things.
//!
//! The operator may be newer than this agent. What a policy says and this agent does not know must not be passed
//! over: a policy with a field that is unknown here is not understood, and closes the pods that it may select.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use weir_api::node_dataplane::RefusedSetting;
use weir_api::{DataplaneSettings, NodeDataplaneSpec};
use weir_policy::identity::{IdentityKey, Relevance};
use weir_policy::lower::FlowLog;
use weir_policy::model::{PodSelector, Policy, PolicyRef};
use weir_policy::resolved::IdentityNumber;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSpec {
    /// The revision that the address book must have reached.
    pub address_book: i64,
    pub relevance: Relevance,
    pub covers: BTreeSet<IdentityNumber>,
    pub policies: BTreeMap<PolicyRef, Policy>,
    pub flow_logs: BTreeMap<String, FlowLog>,
    pub not_understood: Vec<NotUnderstood>,
}

/// A policy or FlowLogPolicy that this agent cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUnderstood {
    /// Like `NetworkPolicy shop/db`, or its place in the spec.
    pub what: String,
    pub error: String,
    /// Whose traffic it may be about.
    pub closes: Closes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closes {
    Nobody,
    Selected(PodSelector),
    Namespace(String),
    Everybody,
}

impl NotUnderstood {
    #[must_use]
    pub fn closes(&self, identity: &IdentityKey) -> bool {
        match &self.closes {
            Closes::Nobody => false,
            Closes::Selected(subject) => subject.matches(identity),
            Closes::Namespace(namespace) => *namespace == identity.namespace,
            Closes::Everybody => true,
        }
    }
}

/// Reads a spec. Never fails: what is not understood is listed.
#[must_use]
pub fn node_spec(spec: &NodeDataplaneSpec) -> NodeSpec {
    let relevance = spec.relevance.clone();
    let mut read = NodeSpec {
        address_book: spec.address_book,
        relevance: Relevance {
            pod_labels: relevance.pod_labels,
            namespace_labels: relevance.namespace_labels,
            named_ports: relevance.named_ports,
        },
        covers: spec.covers.iter().copied().collect(),
        ..NodeSpec::default()
    };
    for (index, value) in spec.policies.iter().enumerate() {
        match strictly::<Policy>(value) {
            Ok(policy) => {
                read.policies.insert(policy.reference.clone(), policy);
            }
            Err(error) => read
                .not_understood
                .push(policy_not_understood(index, value, error)),
        }
    }
    for (name, value) in &spec.flow_logs {
        match strictly(value) {
            Ok(log) => {
                read.flow_logs.insert(name.clone(), log);
            }
            Err(error) => read.not_understood.push(NotUnderstood {
                what: format!("FlowLogPolicy {name}"),
                error,
                closes: Closes::Nobody,
            }),
        }
    }
    read
}

/// Takes an object's spec for what it is.
///
/// Settings that this agent does not know, or values of them, are refused one by one; the others hold.
///
/// # Errors
///
/// If the rest is not what a spec is.
pub fn typed(spec: &Value) -> Result<(NodeDataplaneSpec, Vec<RefusedSetting>), String> {
    let mut spec = spec.clone();
    let settings = spec.as_object_mut().and_then(|spec| spec.remove("settings"));
    let (settings, refused) = known_settings(&settings.unwrap_or_default());
    let spec: NodeDataplaneSpec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    Ok((NodeDataplaneSpec { settings, ..spec }, refused))
}

fn known_settings(settings: &Value) -> (DataplaneSettings, Vec<RefusedSetting>) {
    let mut known = Map::new();
    let mut refused = Vec::new();
    let sections = settings.as_object().into_iter().flatten();
    for (section, fields) in sections.filter(|(_, fields)| fields.is_object()) {
        for (field, value) in fields.as_object().into_iter().flatten() {
            let alone =
                |value: &Value| Value::from_iter([(section, Value::from_iter([(field, value.clone())]))]);
            match strictly::<DataplaneSettings>(&alone(value)) {
                Ok(_) => {
                    let section = known.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    section[field] = value.clone();
                }
                Err(error) => refused.push(RefusedSetting {
                    field: format!("spec.{section}.{field}"),
                    message: format!("this agent does not understand it: {error}; the default holds"),
                }),
            }
        }
    }
    let settings = serde_json::from_value(Value::Object(known)).unwrap_or_default();
    (settings, refused)
}

/// An unknown field is an error.
fn strictly<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let mut unknown = None;
    let read = serde_ignored::deserialize(value, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let read = read.map_err(|error| error.to_string())?;
    match unknown {
        Some(field) => Err(format!("this agent does not know the field {field}")),
        None => Ok(read),
    }
}

fn policy_not_understood(index: usize, value: &Value, error: String) -> NotUnderstood {
    let reference = strictly::<PolicyRef>(&value["reference"]).ok();
    let closes = match strictly(&value["subject"]) {
        Ok(subject) => Closes::Selected(subject),
        Err(_) => reference
            .as_ref()
            .and_then(|reference| reference.namespace.clone())
            .map_or(Closes::Everybody, Closes::Namespace),
    };
    NotUnderstood {
        what: reference.map_or_else(
            || format!("spec.policies[{index}]"),
            |reference| reference.to_string(),
        ),
        error,
        closes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_policy::model::{Namespaces, Rules, Tier};
    use weir_policy::selector::Selector;

    use super::*;

    fn policy() -> Policy {
        Policy {
            reference: PolicyRef::network_policy("shop", "db"),
            tier: Tier::NetworkPolicy,
            priority: 0,
            dry_run: false,
            subject: PodSelector {
                namespaces: Namespaces::Named("shop".to_owned()),
                pods: Selector::default(),
            },
            ingress: Rules {
                isolates: true,
                rules: Vec::new(),
            },
            egress: Rules::default(),
        }
    }

    fn read(policies: Vec<Value>) -> NodeSpec {
        node_spec(&NodeDataplaneSpec {
            policies,
            ..NodeDataplaneSpec::default()
        })
    }

    fn identity(namespace: &str) -> IdentityKey {
        IdentityKey {
            namespace: namespace.to_owned(),
            pod_labels: BTreeMap::new(),
            namespace_labels: BTreeMap::new(),
            named_ports: BTreeMap::new(),
        }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let policy = policy();
        let value = serde_json::to_value(&policy).expect("a value");
        let expected = NodeSpec {
            policies: BTreeMap::from([(policy.reference.clone(), policy)]),
            ..NodeSpec::default()
        };
        assert_eq!(read(vec![value]), expected);
    }

    #[test]
    fn a_policy_with_an_unknown_field_closes_the_pods_that_it_selects() {
        let mut value = serde_json::to_value(policy()).expect("a value");
        value["ingress"]["onlyOnSundays"] = json!(true);
        let spec = read(vec![value]);
        assert_eq!(spec.policies, BTreeMap::new());
        let [problem] = &spec.not_understood[..] else {
            panic!("{spec:?}")
        };
        assert_eq!(
            (&*problem.what, &*problem.error),
            (
                "NetworkPolicy shop/db",
                "this agent does not know the field ingress.onlyOnSundays"
            )
        );
        assert_eq!(problem.closes, Closes::Selected(policy().subject));
        assert!(problem.closes(&identity("shop")) && !problem.closes(&identity("other")));
    }

    #[test]
    fn the_less_is_understood_the_more_is_closed() {
        let mut new_selector = serde_json::to_value(policy()).expect("a value");
        new_selector["subject"]["serviceAccounts"] = json!(["a"]);
        let mut new_kind = new_selector.clone();
        new_kind["reference"]["kind"] = json!("HostPolicy");
        let spec = read(vec![new_selector, new_kind, json!(7)]);
        let closes: Vec<(&str, &Closes)> = spec
            .not_understood
            .iter()
            .map(|problem| (&*problem.what, &problem.closes))
            .collect();
        assert_eq!(
            closes,
            [
                ("NetworkPolicy shop/db", &Closes::Namespace("shop".to_owned())),
                ("spec.policies[1]", &Closes::Everybody),
                ("spec.policies[2]", &Closes::Everybody),
            ]
        );
        assert!(spec.not_understood[1].closes(&identity("other")));
    }

    #[test]
    fn settings_of_a_newer_version_are_refused_one_by_one() {
        let spec = json!({
            "addressBook": 7,
            "relevance": {},
            "settings": {
                "network": {"mode": "Geneve", "mtu": 1400, "colour": "blue"},
                "policy": {"podStartTimeoutSeconds": 5},
                "quota": {"flows": 5}
            }
        });
        let (read, refused) = typed(&spec).expect("a spec");
        let settings = json!({"network": {"mtu": 1400}, "policy": {"podStartTimeoutSeconds": 5}});
        let expected = NodeDataplaneSpec {
            address_book: 7,
            settings: serde_json::from_value(settings).expect("settings"),
            ..NodeDataplaneSpec::default()
        };
        assert_eq!(read, expected);
        let texts: Vec<String> = refused
            .iter()
            .map(|refused| format!("{}: {}", refused.field, refused.message))
            .collect();
        assert_eq!(
            texts,
            [
                "spec.network.colour: this agent does not understand it: this agent does not know the field \
                 network.?.colour; the default holds",
                "spec.network.mode: this agent does not understand it: unknown variant `Geneve`, expected `Native` or \
                 `Vxlan`; the default holds",
                "spec.quota.flows: this agent does not understand it: this agent does not know the field quota; the \
                 default holds",
            ]
        );
        assert!(typed(&json!({"addressBook": "seven"})).is_err());
    }

    #[test]
    fn a_flow_log_that_is_not_understood_closes_nobody() {
        let spec = node_spec(&NodeDataplaneSpec {
            flow_logs: BTreeMap::from([("all".to_owned(), json!({"subject": null}))]),
            ..NodeDataplaneSpec::default()
        });
        assert_eq!(spec.flow_logs, BTreeMap::new());
        assert_eq!(
            spec.not_understood,
            [NotUnderstood {
                what: "FlowLogPolicy all".to_owned(),
                error: "missing field `verdicts`".to_owned(),
                closes: Closes::Nobody,
            }]
        );
    }
}
