//! "A label selector is a label query over a set of resources."

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// What a part of an object says of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Yes,
    No,
    /// It says nothing that has a meaning.
    Unclear,
}

/// All requirements of a subject: `Unclear` where the clear ones hold.
pub(super) fn may_be(requirements: &[Reading]) -> Reading {
    if requirements.contains(&Reading::No) {
        Reading::No
    } else if requirements.contains(&Reading::Unclear) {
        Reading::Unclear
    } else {
        Reading::Yes
    }
}

/// All requirements of a peer: `Unclear` as soon as one is, whoever is asked about.
pub(super) fn surely(requirements: &[Reading], clear: bool) -> Reading {
    if clear {
        may_be(requirements)
    } else {
        Reading::Unclear
    }
}

/// "The requirements are ANDed. An empty label selector matches all objects."
pub(super) fn read_selector(
    selector: &LabelSelector,
    label: &dyn Fn(&str) -> Option<String>,
) -> Vec<Reading> {
    let labels = selector
        .match_labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| LabelSelectorRequirement {
            key,
            operator: "In".to_owned(),
            values: Some(vec![value]),
        });
    let expressions = selector.match_expressions.clone().unwrap_or_default();
    labels
        .chain(expressions)
        .map(|requirement| read_requirement(&requirement, label(&requirement.key)))
        .collect()
}

pub(super) fn selector_is_clear(selector: &LabelSelector) -> bool {
    !read_selector(selector, &|_| None).contains(&Reading::Unclear)
}

fn read_requirement(requirement: &LabelSelectorRequirement, label: Option<String>) -> Reading {
    let values = requirement.values.clone().unwrap_or_default();
    if !is_label_key(&requirement.key) || !values.iter().all(|value| is_label_value(value)) {
        return Reading::Unclear;
    }
    let holds = match (requirement.operator.as_str(), values.is_empty()) {
        ("In", false) => label.is_some_and(|label| values.contains(&label)),
        ("NotIn", false) => label.is_none_or(|label| !values.contains(&label)),
        ("Exists", true) => label.is_some(),
        ("DoesNotExist", true) => label.is_none(),
        _ => return Reading::Unclear,
    };
    if holds { Reading::Yes } else { Reading::No }
}

/// "Valid label keys have two segments: an optional prefix and name, separated by a slash."
fn is_label_key(key: &str) -> bool {
    let segments: Vec<&str> = key.split('/').collect();
    match segments.as_slice() {
        [name] => !name.is_empty() && is_label_value(name),
        [prefix, name] => {
            let is_part = |part: &str| {
                part.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                    && !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            };
            prefix.len() <= 253 && prefix.split('.').all(is_part) && !name.is_empty() && is_label_value(name)
        }
        _ => false,
    }
}

/// "Must be 63 characters or less (can be empty), unless empty, must begin and end with an alphanumeric character,
/// could contain dashes, underscores, dots, and alphanumerics between."
fn is_label_value(value: &str) -> bool {
    let edges = value.chars().next().into_iter().chain(value.chars().last());
    value.len() <= 63
        && edges.into_iter().all(|c| c.is_ascii_alphanumeric())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
