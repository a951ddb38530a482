//! What a custom resource says, as far as it is understood.
//!
//! An object may have been written for a newer version, with words that this one does not know. What is understood of
//! it counts; what is not is named with its path, and fails closed.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use weir_api::ClusterNetworkPolicySpec;
use weir_api::cluster_network_policy::{EgressRule, IngressRule, RuleAction, Subject, Tier as WrittenTier};

/// A part of an object that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undecodable {
    /// Like `spec.network.mode`.
    pub field: String,
    pub message: String,
}

/// Reads a value, or says where it cannot be read. `path` is where the value stands.
///
/// # Errors
/// The first place that cannot be read.
pub fn decode<T: DeserializeOwned>(value: &Value, path: &str) -> Result<T, Undecodable> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let field = match inner.as_str() {
            "." => path.to_owned(),
            inner => format!("{path}.{inner}"),
        };
        Undecodable {
            field,
            message: error.inner().to_string(),
        }
    })
}

/// Reads an object of two levels, sections of fields, leaving out each field that cannot be read.
pub fn decode_fields<T: DeserializeOwned + Default>(value: &Value, path: &str) -> (T, Vec<Undecodable>) {
    let mut value = value.clone();
    let mut problems = Vec::new();
    loop {
        match decode::<T>(&value, path) {
            Ok(decoded) => return (decoded, problems),
            Err(problem) => {
                let removed = remove_field(&mut value, problem.field.strip_prefix(path).unwrap_or_default());
                problems.push(problem);
                if !removed {
                    return (T::default(), problems);
                }
            }
        }
    }
}

/// Removes `.section.field…`, or `.section` where the section is no object.
fn remove_field(value: &mut Value, path: &str) -> bool {
    let mut names = path.split(['.', '[']).filter(|name| !name.is_empty());
    let (Some(section), field, Value::Object(root)) = (names.next(), names.next(), value) else {
        return false;
    };
    match (root.get_mut(section), field) {
        (Some(Value::Object(fields)), Some(field)) => fields.remove(field).is_some(),
        (Some(_), _) => root.remove(section).is_some(),
        (None, _) => false,
    }
}

/// Reads the spec of a ClusterNetworkPolicy.
///
/// 1. A rule that cannot be read denies everything in its direction.
/// 2. A subject that cannot be read is taken as one that is not understood.
/// 3. A tier that cannot be read is taken for Admin, and only the policy's denials hold.
/// 4. A priority that cannot be read is taken as 0.
#[must_use]
pub fn cluster_network_policy(spec: &Value) -> (ClusterNetworkPolicySpec, Vec<Undecodable>) {
    let first = match decode::<ClusterNetworkPolicySpec>(spec, "spec") {
        Ok(spec) => return (spec, Vec::new()),
        Err(problem) => problem,
    };
    let empty = Map::new();
    let spec = spec.as_object().unwrap_or(&empty);
    let field = |name: &str| spec.get(name).unwrap_or(&Value::Null);
    let mut problems = Vec::new();
    let tier = keep(decode::<WrittenTier>(field("tier"), "spec.tier"), &mut problems);
    let mut ingress = rules::<IngressRule>(field("ingress"), "spec.ingress", &mut problems);
    let mut egress = rules::<EgressRule>(field("egress"), "spec.egress", &mut problems);
    if tier.is_none() {
        ingress.retain(|rule| rule.action == RuleAction::Deny);
        egress.retain(|rule| rule.action == RuleAction::Deny);
    }
    let decoded = ClusterNetworkPolicySpec {
        tier: tier.unwrap_or(WrittenTier::Admin),
        priority: keep(decode(field("priority"), "spec.priority"), &mut problems).unwrap_or_default(),
        subject: keep(decode(field("subject"), "spec.subject"), &mut problems).unwrap_or(Subject::default()),
        ingress,
        egress,
    };
    if problems.is_empty() {
        problems.push(first);
    }
    (decoded, problems)
}

/// Without a peer, a Deny is one that is not understood, and denies everything.
fn rules<T: DeserializeOwned + DenyAll>(
    value: &Value,
    path: &str,
    problems: &mut Vec<Undecodable>,
) -> Vec<T> {
    let rules = match value {
        Value::Null => return Vec::new(),
        Value::Array(rules) => rules.as_slice(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            let message = "this is no list of rules".to_owned();
            problems.push(Undecodable {
                field: path.to_owned(),
                message,
            });
            return vec![T::deny_all()];
        }
    };
    let rules = rules.iter().enumerate();
    rules
        .map(|(index, rule)| {
            let decoded = decode(rule, &format!("{path}[{index}]"));
            keep(decoded, problems).unwrap_or_else(T::deny_all)
        })
        .collect()
}

trait DenyAll {
    fn deny_all() -> Self;
}

impl DenyAll for IngressRule {
    fn deny_all() -> Self {
        Self {
            name: None,
            action: RuleAction::Deny,
            from: Vec::new(),
            protocols: None,
        }
    }
}

impl DenyAll for EgressRule {
    fn deny_all() -> Self {
        Self {
            name: None,
            action: RuleAction::Deny,
            to: Vec::new(),
            protocols: None,
        }
    }
}

fn keep<T>(decoded: Result<T, Undecodable>, problems: &mut Vec<Undecodable>) -> Option<T> {
    decoded.map_err(|problem| problems.push(problem)).ok()
}

/// The member of an object, or null.
#[must_use]
pub fn member<'a>(data: &'a Value, name: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    data.get(name).unwrap_or(&NULL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_api::DataplaneSettings;
    use weir_api::cluster_network_policy::IngressPeer;
    use weir_api::dataplane_config::{NetworkSettings, PolicySettings};

    use super::*;

    #[test]
    fn fields_that_are_understood_count() {
        let spec = json!({
            "precedence": 3,
            "network": {"mode": "Geneve", "mtu": 1400, "uplinks": ["eth0", 5]},
            "policy": {"podStartTimeoutSeconds": 7},
            "capacity": "large",
        });
        let (settings, problems) = decode_fields::<DataplaneSettings>(&spec, "spec");
        let expected = DataplaneSettings {
            network: Some(NetworkSettings {
                mtu: Some(1400),
                ..NetworkSettings::default()
            }),
            policy: Some(PolicySettings {
                pod_start_timeout_seconds: Some(7),
                ..PolicySettings::default()
            }),
            ..DataplaneSettings::default()
        };
        assert_eq!(settings, expected);
        let mut fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            ["spec.capacity", "spec.network.mode", "spec.network.uplinks[1]"]
        );
    }

    #[test]
    fn a_rule_that_cannot_be_read_denies() {
        let spec = json!({
            "tier": "Admin", "priority": 4, "subject": {"namespaces": {}},
            "ingress": [
                {"action": "Accept", "from": [{"namespaces": {}}]},
                {"action": "Log", "from": [{"namespaces": {}}]},
            ],
        });
        let (decoded, problems) = cluster_network_policy(&spec);
        let peer = IngressPeer {
            namespaces: Some(Default::default()),
            pods: None,
        };
        let accept = IngressRule {
            name: None,
            action: RuleAction::Accept,
            from: vec![peer],
            protocols: None,
        };
        assert_eq!(decoded.ingress, [accept, IngressRule::deny_all()]);
        assert_eq!(problems[0].field, "spec.ingress[1].action");
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn of_a_tier_that_is_not_known_only_denials_hold() {
        let spec = json!({
            "tier": "Emergency", "priority": 4, "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": [{"namespaces": {}}]},
                {"action": "Pass", "to": [{"namespaces": {}}]},
                {"action": "Deny", "to": [{"namespaces": {}}]},
            ],
        });
        let (decoded, problems) = cluster_network_policy(&spec);
        let actions: Vec<RuleAction> = decoded.egress.iter().map(|rule| rule.action).collect();
        assert_eq!(
            (decoded.tier, actions),
            (WrittenTier::Admin, vec![RuleAction::Deny])
        );
        assert_eq!(problems[0].field, "spec.tier");
    }

    #[test]
    fn nothing_at_all_is_a_subject_that_is_not_understood() {
        let (decoded, problems) = cluster_network_policy(&Value::Null);
        assert_eq!(decoded.subject, Subject::default());
        assert!(!problems.is_empty());
    }
}
