//! `metav1.LabelSelector`, checked as apimachinery's `labels.NewRequirement` does (v0.36).

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{NotUnderstood, Report};
use crate::problem::Code;
use crate::selector::{Operator, Requirement, Selector};

/// The requirements that can be read, and whether that is all of them.
pub(super) struct Reading {
    pub(super) selector: Selector,
    pub(super) complete: bool,
}

impl Reading {
    /// The selector, if it was understood completely.
    pub(super) fn strict(self) -> Result<Selector, NotUnderstood> {
        if self.complete {
            Ok(self.selector)
        } else {
            Err(NotUnderstood)
        }
    }
}

/// Reads a selector. An absent one selects everything, as an empty one does: that is for the caller to want.
pub(super) fn label_selector(selector: Option<&LabelSelector>, path: &str, report: &mut Report) -> Reading {
    let Some(selector) = selector else {
        return Reading {
            selector: Selector::default(),
            complete: true,
        };
    };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| {
        let operator = Operator::In(BTreeSet::from([value.clone()]));
        check(
            Requirement {
                key: key.clone(),
                operator,
            },
            &format!("{path}.matchLabels[{key}]"),
            report,
        )
    });
    let labels: Vec<_> = labels.collect();
    let expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, expression)| {
            let path = format!("{path}.matchExpressions[{index}]");
            requirement(expression, &path, report).and_then(|requirement| check(requirement, &path, report))
        });
    let expressions: Vec<_> = expressions.collect();
    let complete = labels.iter().chain(&expressions).all(Result::is_ok);
    Reading {
        selector: labels.into_iter().chain(expressions).flatten().collect(),
        complete,
    }
}

fn requirement(
    expression: &LabelSelectorRequirement,
    path: &str,
    report: &mut Report,
) -> Result<Requirement, NotUnderstood> {
    let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
    let operator = match (expression.operator.as_str(), values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        (operator @ ("In" | "NotIn"), true) => {
            let message = format!("the operator {operator} needs at least one value");
            report.add(Code::InvalidSelector, format!("{path}.values"), message);
            return Err(NotUnderstood);
        }
        (operator @ ("Exists" | "DoesNotExist"), false) => {
            let message = format!("the operator {operator} takes no values");
            report.add(Code::InvalidSelector, format!("{path}.values"), message);
            return Err(NotUnderstood);
        }
        (operator, _) => {
            let message = format!("{operator:?} is not one of In, NotIn, Exists, DoesNotExist");
            report.add(Code::InvalidSelector, format!("{path}.operator"), message);
            return Err(NotUnderstood);
        }
    };
    Ok(Requirement {
        key: expression.key.clone(),
        operator,
    })
}

/// Checks key and values for what can be a label at all.
fn check(requirement: Requirement, path: &str, report: &mut Report) -> Result<Requirement, NotUnderstood> {
    if !is_label_key(&requirement.key) {
        report.add(
            Code::InvalidSelector,
            path,
            format!("{:?} cannot be the key of a label", requirement.key),
        );
        return Err(NotUnderstood);
    }
    let bad_value = match &requirement.operator {
        Operator::In(values) | Operator::NotIn(values) => values.iter().find(|value| !is_label_value(value)),
        Operator::Exists | Operator::DoesNotExist => None,
    };
    if let Some(value) = bad_value {
        report.add(
            Code::InvalidSelector,
            path,
            format!("{value:?} cannot be the value of a label"),
        );
        return Err(NotUnderstood);
    }
    Ok(requirement)
}

/// `name` or `prefix/name`; the prefix a DNS subdomain of at most 253 characters, the name 1 to 63 characters.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Empty, or at most 63 of `[A-Za-z0-9-_.]`, the first and the last alphanumeric.
fn is_label_value(value: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    value.len() <= 63 && ends_are_alphanumeric(value) && value.as_bytes().iter().all(inner)
}

fn is_dns_subdomain(name: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let is_label =
        |label: &str| !label.is_empty() && ends_are_alphanumeric(label) && label.as_bytes().iter().all(inner);
    name.len() <= 253 && name.split('.').all(is_label)
}

fn ends_are_alphanumeric(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter()
        .flatten()
        .all(|byte| byte.is_ascii_alphanumeric())
}
