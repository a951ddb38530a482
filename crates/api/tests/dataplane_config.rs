//! DataplaneConfig: what people write is read whole and written back as it was.

use serde_json::{Value, json};
use weir_api::dataplane_config::{
    CapacitySettings, DataplaneSettings, EstablishedConnections, LogLevel, NetworkMode, NetworkSettings,
    ObservabilitySettings, OnPodStartTimeout, PolicySettings, ServiceSettings, Switch,
    custom_resource_definition,
};
use weir_api::{DataplaneConfig, DataplaneConfigSpec};

fn every_field() -> (Value, DataplaneConfigSpec) {
    let written = json!({
        "nodeSelector": { "matchLabels": { "zone": "a" } },
        "precedence": 7,
        "services": { "socketLoadBalancing": "Disabled" },
        "policy": {
            "establishedConnections": "Keep", "podStartTimeoutSeconds": 60, "onPodStartTimeout": "Fail",
        },
        "network": {
            "mode": "Vxlan", "nativeRoutes": "Disabled", "uplinks": ["eth0"], "mtu": 1400,
            "masquerade": "Disabled", "nonMasqueradeCIDRs": ["10.0.0.0/8"],
        },
        "capacity": { "flows": 1024 },
        "observability": { "recordsPerSecond": 5, "logLevel": "Debug" },
    });
    let read = DataplaneConfigSpec {
        node_selector: serde_json::from_value(written["nodeSelector"].clone()).expect("a selector"),
        precedence: Some(7),
        settings: DataplaneSettings {
            services: Some(ServiceSettings {
                socket_load_balancing: Some(Switch::Disabled),
            }),
            policy: Some(PolicySettings {
                established_connections: Some(EstablishedConnections::Keep),
                pod_start_timeout_seconds: Some(60),
                on_pod_start_timeout: Some(OnPodStartTimeout::Fail),
            }),
            network: Some(NetworkSettings {
                mode: Some(NetworkMode::Vxlan),
                native_routes: Some(Switch::Disabled),
                uplinks: Some(vec!["eth0".to_owned()]),
                mtu: Some(1400),
                masquerade: Some(Switch::Disabled),
                non_masquerade_cidrs: Some(vec!["10.0.0.0/8".to_owned()]),
            }),
            capacity: Some(CapacitySettings { flows: Some(1024) }),
            observability: Some(ObservabilitySettings {
                records_per_second: Some(5),
                log_level: Some(LogLevel::Debug),
            }),
        },
    };
    (written, read)
}

#[test]
fn every_field_is_read_and_written_back() {
    let (written, read) = every_field();
    assert_eq!(
        serde_json::from_value::<DataplaneConfigSpec>(written.clone()).expect("valid"),
        read
    );
    assert_eq!(serde_json::to_value(read).expect("serializable"), written);
}

#[test]
fn an_empty_spec_sets_nothing_and_stays_empty() {
    let read: DataplaneConfigSpec = serde_json::from_value(json!({})).expect("valid");
    assert_eq!(read, DataplaneConfigSpec::default());
    assert_eq!(serde_json::to_value(read).expect("serializable"), json!({}));
}

/// `settings` is no field of its own to who writes YAML.
#[test]
fn the_schema_has_the_settings_beside_the_selector() {
    let definition = serde_json::to_value(custom_resource_definition().expect("a definition")).expect("JSON");
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let properties = spec["properties"].as_object().expect("properties");
    let (written, _) = every_field();
    let names: Vec<&String> = written.as_object().expect("an object").keys().collect();
    assert_eq!(properties.keys().collect::<Vec<_>>(), names);
    for (section, fields) in written.as_object().expect("an object") {
        let Some(fields) = fields.as_object().filter(|_| section != "nodeSelector") else {
            continue;
        };
        let found = properties[section]["properties"].as_object().expect("properties");
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            fields.keys().collect::<Vec<_>>(),
            "{section}"
        );
    }
    assert_eq!(spec.get("required"), None);
}

#[test]
fn a_status_is_optional() {
    let config = json!({
        "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig",
        "metadata": { "name": "a" }, "spec": {},
    });
    let config: DataplaneConfig = serde_json::from_value(config).expect("valid");
    assert_eq!(config.status, None);
}
