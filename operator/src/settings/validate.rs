//! What a setting may be. The API server enforces ranges; an object that was written under another schema is checked
//! here, and what a schema cannot tell is checked nowhere else.

use ipnet::IpNet;
use weir_api::DataplaneSettings;

use super::ConfigProblem;

/// Takes the fields out of `settings` that are not valid, and says why.
pub(super) fn validate(settings: &mut DataplaneSettings, precedence: i32) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    if !(-1000..=1000).contains(&precedence) {
        problems.push(out_of_range(
            "spec.precedence",
            precedence,
            -1000,
            1000,
            "it counts as it stands",
        ));
    }
    if let Some(policy) = &mut settings.policy {
        let field = "spec.policy.podStartTimeoutSeconds";
        in_range(
            &mut policy.pod_start_timeout_seconds,
            field,
            1,
            110,
            &mut problems,
        );
    }
    if let Some(network) = &mut settings.network {
        in_range(&mut network.mtu, "spec.network.mtu", 1280, 65535, &mut problems);
        each(
            &mut network.uplinks,
            "spec.network.uplinks",
            uplink,
            &mut problems,
        );
        let field = "spec.network.nonMasqueradeCIDRs";
        each(&mut network.non_masquerade_cidrs, field, cidr, &mut problems);
    }
    if let Some(capacity) = &mut settings.capacity {
        in_range(
            &mut capacity.flows,
            "spec.capacity.flows",
            1024,
            16_777_216,
            &mut problems,
        );
    }
    if let Some(observability) = &mut settings.observability {
        let field = "spec.observability.recordsPerSecond";
        in_range(
            &mut observability.records_per_second,
            field,
            1,
            1_000_000,
            &mut problems,
        );
    }
    problems
}

fn in_range(value: &mut Option<i32>, field: &str, least: i32, most: i32, problems: &mut Vec<ConfigProblem>) {
    if let Some(number) = value.filter(|number| !(least..=most).contains(number)) {
        problems.push(out_of_range(field, number, least, most, "it is ignored"));
        *value = None;
    }
}

fn out_of_range(field: &str, number: i32, least: i32, most: i32, consequence: &str) -> ConfigProblem {
    ConfigProblem {
        field: field.to_owned(),
        reason: "OutOfRange",
        message: format!("{number} is not in {least} to {most}; {consequence}"),
    }
}

/// A list with an item that is not valid is left out as a whole: a part of it is not what its author asked for.
fn each(
    list: &mut Option<Vec<String>>,
    field: &str,
    check: fn(&str) -> Result<(), (&'static str, String)>,
    problems: &mut Vec<ConfigProblem>,
) {
    let items = list.iter().flatten().enumerate();
    let found: Vec<ConfigProblem> = items
        .filter_map(|(index, item)| {
            let (reason, message) = check(item).err()?;
            Some(ConfigProblem {
                field: format!("{field}[{index}]"),
                reason,
                message: format!("{message}; the list is ignored"),
            })
        })
        .collect();
    if !found.is_empty() {
        *list = None;
        problems.extend(found);
    }
}

fn cidr(text: &str) -> Result<(), (&'static str, String)> {
    let network: IpNet = text.parse().map_err(|_| {
        (
            "InvalidCidr",
            format!("{text:?} is no network like 10.0.0.0/8 or fc00::/7"),
        )
    })?;
    if network == network.trunc() {
        return Ok(());
    }
    let message = format!("{text} has host bits set; the network is {}", network.trunc());
    Err(("InvalidCidr", message))
}

/// As the kernel has it (`dev_valid_name`), with 15 bytes at most.
fn uplink(name: &str) -> Result<(), (&'static str, String)> {
    let is_valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    match is_valid {
        true => Ok(()),
        false => Err(("InvalidValue", format!("{name:?} is no name of an interface"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_limit_is_held() {
        let written = json!({
            "policy": {"podStartTimeoutSeconds": 0},
            "network": {"mtu": 100, "uplinks": ["eth0", "a/b"], "nonMasqueradeCIDRs": ["10.0.0.1/8"]},
            "capacity": {"flows": 5},
            "observability": {"recordsPerSecond": 0},
        });
        let mut settings: DataplaneSettings = serde_json::from_value(written).expect("these are settings");
        let problems = validate(&mut settings, 5000);
        let fields: Vec<(&str, &str)> = problems
            .iter()
            .map(|problem| (problem.field.as_str(), problem.reason))
            .collect();
        assert_eq!(
            fields,
            [
                ("spec.precedence", "OutOfRange"),
                ("spec.policy.podStartTimeoutSeconds", "OutOfRange"),
                ("spec.network.mtu", "OutOfRange"),
                ("spec.network.uplinks[1]", "InvalidValue"),
                ("spec.network.nonMasqueradeCIDRs[0]", "InvalidCidr"),
                ("spec.capacity.flows", "OutOfRange"),
                ("spec.observability.recordsPerSecond", "OutOfRange"),
            ]
        );
        let left = serde_json::to_value(settings).expect("settings are JSON");
        assert_eq!(
            left,
            json!({"policy": {}, "network": {}, "capacity": {}, "observability": {}})
        );
    }

    #[test]
    fn valid_settings_stay() {
        let written = json!({
            "policy": {"podStartTimeoutSeconds": 110},
            "network": {"mtu": 1280, "uplinks": ["eth0"], "nonMasqueradeCIDRs": ["fc00::/7", "10.0.0.0/8"]},
        });
        let mut settings: DataplaneSettings =
            serde_json::from_value(written.clone()).expect("these are settings");
        assert_eq!(validate(&mut settings, -1000), []);
        assert_eq!(
            serde_json::to_value(settings).expect("settings are JSON"),
            written
        );
    }
}
