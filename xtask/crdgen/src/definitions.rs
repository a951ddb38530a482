//! The definitions as files.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_api::cluster_network_policy::Channel;
use weir_api::{
    address_slice, cluster_network_policy, dataplane_config, flow_log_policy, identity_slice, node_dataplane,
    policy_status,
};

const HEADER: &str = "# Made by `cargo xtask crdgen` from the types in crates/api. Edit those.\n";

/// File names, like `dataplane.weir.dev_dataplaneconfigs.yaml`, and their contents.
pub(crate) fn files() -> Result<BTreeMap<String, String>> {
    let definitions = [
        cluster_network_policy::custom_resource_definition(Channel::Standard)?,
        dataplane_config::custom_resource_definition()?,
        flow_log_policy::custom_resource_definition()?,
        policy_status::custom_resource_definition()?,
        node_dataplane::custom_resource_definition()?,
        identity_slice::custom_resource_definition()?,
        address_slice::custom_resource_definition()?,
    ];
    definitions
        .into_iter()
        .map(|definition| {
            let name = format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural);
            let mut value = serde_json::to_value(definition)?;
            write_whole_numbers(&mut value);
            let yaml = serde_yaml_ng::to_string(&value).with_context(|| format!("writing {name}"))?;
            Ok((name, format!("{HEADER}{yaml}")))
        })
        .collect()
}

/// Limits are floating-point numbers in the API's own type: `1.0` becomes `1`.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().and_then(whole) {
                *value = whole.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn whole(number: f64) -> Option<i64> {
    // Every whole number up to 2^53 is a floating-point number of its own.
    #[expect(clippy::cast_possible_truncation, reason = "the bounds are within i64")]
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_a_file() {
        let names: Vec<_> = files().expect("definitions").into_keys().collect();
        let expected = [
            "dataplane.weir.dev_addressslices.yaml",
            "dataplane.weir.dev_dataplaneconfigs.yaml",
            "dataplane.weir.dev_flowlogpolicies.yaml",
            "dataplane.weir.dev_identityslices.yaml",
            "dataplane.weir.dev_nodedataplanes.yaml",
            "dataplane.weir.dev_policystatuses.yaml",
            "policy.networking.k8s.io_clusternetworkpolicies.yaml",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        let mut value = json!({ "minimum": 1.0, "maximum": [65535.0, 0.5, 7] });
        write_whole_numbers(&mut value);
        assert_eq!(value, json!({ "minimum": 1, "maximum": [65535, 0.5, 7] }));
    }
}
