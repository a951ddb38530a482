//! The settings of a node, with defaults for what nobody set; what this node cannot do is refused and told.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use weir_api::DataplaneSettings;
use weir_api::dataplane_config::{EstablishedConnections, LogLevel, NetworkMode, OnPodStartTimeout, Switch};
use weir_api::node_dataplane::RefusedSetting;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    pub socket_load_balancing: bool,
    pub pod_start_timeout: Duration,
    pub on_pod_start_timeout: OnPodStartTimeout,
    pub network: Network,
    /// Entries of the flow table of each address family.
    pub flows: u32,
    /// Of each CPU.
    pub records_per_second: u32,
    /// `None`: as the agent was started.
    pub log_level: Option<LogLevel>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub mode: NetworkMode,
    pub native_routes: bool,
    /// Empty: found by the node's routes and addresses.
    pub uplinks: BTreeSet<String>,
    /// `None`: that of the uplinks.
    pub mtu: Option<u32>,
    pub masquerade: bool,
    pub non_masquerade_cidrs: Vec<IpNet>,
}

/// Of what a DataplaneConfig may ask for, the parts that depend on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAbilities {
    /// There is a cgroup2 file system, and the agent was told where.
    pub cgroup: bool,
    pub vxlan: bool,
    pub native_routes: bool,
    pub masquerade: bool,
}

const DEFAULT_FLOWS: i32 = 262_144;
const DEFAULT_RECORDS_PER_SECOND: i32 = 20_000;
const DEFAULT_POD_START_TIMEOUT_SECONDS: i32 = 30;
const DEFAULT_NON_MASQUERADE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
/// The most uplinks of a node, as the schema has it.
const MOST_UPLINKS: usize = 16;

impl Default for NodeSettings {
    fn default() -> Self {
        let able = NodeAbilities {
            cgroup: true,
            vxlan: true,
            native_routes: true,
            masquerade: true,
        };
        node_settings(&DataplaneSettings::default(), able).0
    }
}

/// Reads the settings. The refused ones are sorted by field; their defaults hold instead, or the nearest value.
#[must_use]
pub fn node_settings(
    settings: &DataplaneSettings,
    able: NodeAbilities,
) -> (NodeSettings, Vec<RefusedSetting>) {
    let mut refused = Refused::default();
    let services = settings.services.clone().unwrap_or_default();
    let policy = settings.policy.clone().unwrap_or_default();
    let capacity = settings.capacity.clone().unwrap_or_default();
    let observability = settings.observability.clone().unwrap_or_default();
    if policy.established_connections == Some(EstablishedConnections::Keep) {
        refused.add(
            "spec.policy.establishedConnections",
            "this version judges every connection anew when policy, pods or addresses change; Reevaluate holds",
        );
    }
    let mut socket_load_balancing = services.socket_load_balancing != Some(Switch::Disabled);
    if socket_load_balancing && !able.cgroup {
        socket_load_balancing = false;
        if services.socket_load_balancing.is_some() {
            refused.add(
                "spec.services.socketLoadBalancing",
                "there is no cgroup2 file system on this node; Services are translated by packet",
            );
        }
    }
    let seconds = refused.clamped(
        "spec.policy.podStartTimeoutSeconds",
        policy.pod_start_timeout_seconds,
        DEFAULT_POD_START_TIMEOUT_SECONDS,
        1..=110,
    );
    let settings = NodeSettings {
        socket_load_balancing,
        pod_start_timeout: Duration::from_secs(u64::from(seconds)),
        on_pod_start_timeout: policy
            .on_pod_start_timeout
            .unwrap_or(OnPodStartTimeout::StartClosed),
        network: network(settings, able, &mut refused),
        flows: refused.clamped(
            "spec.capacity.flows",
            capacity.flows,
            DEFAULT_FLOWS,
            1024..=16_777_216,
        ),
        records_per_second: refused.clamped(
            "spec.observability.recordsPerSecond",
            observability.records_per_second,
            DEFAULT_RECORDS_PER_SECOND,
            1..=1_000_000,
        ),
        log_level: observability.log_level,
    };
    refused.0.sort_by(|a, b| a.field.cmp(&b.field));
    (settings, refused.0)
}

fn network(settings: &DataplaneSettings, able: NodeAbilities, refused: &mut Refused) -> Network {
    let wanted = settings.network.clone().unwrap_or_default();
    let mode = match wanted.mode {
        Some(NetworkMode::Vxlan) if !able.vxlan => {
            refused.add(
                "spec.network.mode",
                "this version has no VXLAN on this node; Native holds",
            );
            NetworkMode::Native
        }
        mode => mode.unwrap_or(NetworkMode::Native),
    };
    let mut switch = |field, wanted: Option<Switch>, able: bool| {
        if wanted == Some(Switch::Enabled) && !able {
            refused.add(field, "this version cannot do it on this node; Disabled holds");
        }
        wanted != Some(Switch::Disabled) && able
    };
    let native_routes = switch(
        "spec.network.nativeRoutes",
        wanted.native_routes,
        able.native_routes,
    );
    let masquerade = switch("spec.network.masquerade", wanted.masquerade, able.masquerade);
    let cidrs = wanted
        .non_masquerade_cidrs
        .unwrap_or_else(|| DEFAULT_NON_MASQUERADE.map(str::to_owned).to_vec());
    let mut non_masquerade_cidrs = Vec::new();
    for (index, text) in cidrs.iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(cidr) => non_masquerade_cidrs.push(cidr.trunc()),
            Err(_) => refused.add(
                &format!("spec.network.nonMasqueradeCIDRs[{index}]"),
                &format!("{text:?} is no CIDR; it is left out"),
            ),
        }
    }
    let uplinks: BTreeSet<String> = wanted.uplinks.unwrap_or_default().into_iter().collect();
    if uplinks.len() > MOST_UPLINKS {
        refused.add(
            "spec.network.uplinks",
            &format!("there can be {MOST_UPLINKS}; the others are left out"),
        );
    }
    let mtu = wanted
        .mtu
        .map(|mtu| refused.clamped("spec.network.mtu", Some(mtu), mtu, 1280..=65_535));
    Network {
        mode,
        native_routes,
        uplinks: uplinks.into_iter().take(MOST_UPLINKS).collect(),
        mtu,
        masquerade,
        non_masquerade_cidrs,
    }
}

#[derive(Default)]
struct Refused(Vec<RefusedSetting>);

impl Refused {
    fn add(&mut self, field: &str, message: &str) {
        self.0.push(RefusedSetting {
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }

    /// The schema refuses what is out of range; a NodeDataplane that somebody wrote by hand may hold it all the same.
    fn clamped(
        &mut self,
        field: &str,
        wanted: Option<i32>,
        default: i32,
        range: std::ops::RangeInclusive<i32>,
    ) -> u32 {
        let wanted = wanted.unwrap_or(default);
        let value = wanted.clamp(*range.start(), *range.end());
        if value != wanted {
            self.add(
                field,
                &format!(
                    "{wanted} is not from {} to {}; {value} holds",
                    range.start(),
                    range.end()
                ),
            );
        }
        value.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ABLE: NodeAbilities = NodeAbilities {
        cgroup: true,
        vxlan: true,
        native_routes: true,
        masquerade: true,
    };
    const UNABLE: NodeAbilities = NodeAbilities {
        cgroup: false,
        vxlan: false,
        native_routes: false,
        masquerade: false,
    };

    fn read(settings: Value, able: NodeAbilities) -> (NodeSettings, Vec<String>) {
        let settings = serde_json::from_value(settings).expect("settings");
        let (settings, refused) = node_settings(&settings, able);
        let texts = refused
            .into_iter()
            .map(|refused| format!("{}: {}", refused.field, refused.message));
        (settings, texts.collect())
    }

    #[test]
    fn the_defaults_are_those_that_the_fields_descriptions_name() {
        let cidr = |text: &&str| text.parse().expect("a CIDR");
        let expected = NodeSettings {
            socket_load_balancing: true,
            pod_start_timeout: Duration::from_secs(30),
            on_pod_start_timeout: OnPodStartTimeout::StartClosed,
            network: Network {
                mode: NetworkMode::Native,
                native_routes: true,
                uplinks: BTreeSet::new(),
                mtu: None,
                masquerade: true,
                non_masquerade_cidrs: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
                    .iter()
                    .map(cidr)
                    .collect(),
            },
            flows: 262_144,
            records_per_second: 20_000,
            log_level: None,
        };
        assert_eq!(read(json!({}), ABLE), (expected, Vec::new()));
    }

    #[test]
    fn every_field_counts() {
        let settings = json!({
            "services": {"socketLoadBalancing": "Disabled"},
            "policy": {"establishedConnections": "Reevaluate", "podStartTimeoutSeconds": 5,
                       "onPodStartTimeout": "Fail"},
            "network": {"mode": "Vxlan", "nativeRoutes": "Disabled", "uplinks": ["eth1", "eth0"], "mtu": 9000,
                        "masquerade": "Disabled", "nonMasqueradeCIDRs": ["10.1.2.3/16"]},
            "capacity": {"flows": 4096},
            "observability": {"recordsPerSecond": 7, "logLevel": "Debug"}
        });
        let expected = NodeSettings {
            socket_load_balancing: false,
            pod_start_timeout: Duration::from_secs(5),
            on_pod_start_timeout: OnPodStartTimeout::Fail,
            network: Network {
                mode: NetworkMode::Vxlan,
                native_routes: false,
                uplinks: BTreeSet::from(["eth0".to_owned(), "eth1".to_owned()]),
                mtu: Some(9000),
                masquerade: false,
                non_masquerade_cidrs: vec!["10.1.0.0/16".parse().expect("a CIDR")],
            },
            flows: 4096,
            records_per_second: 7,
            log_level: Some(LogLevel::Debug),
        };
        assert_eq!(read(settings, ABLE), (expected, Vec::new()));
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_told() {
        let settings = json!({
            "services": {"socketLoadBalancing": "Enabled"},
            "policy": {"establishedConnections": "Keep", "podStartTimeoutSeconds": 200},
            "network": {"mode": "Vxlan", "nativeRoutes": "Enabled", "mtu": 100, "masquerade": "Enabled",
                        "nonMasqueradeCIDRs": ["ten"]},
        });
        let (settings, refused) = read(settings, UNABLE);
        assert_eq!(
            refused,
            [
                "spec.network.masquerade: this version cannot do it on this node; Disabled holds",
                "spec.network.mode: this version has no VXLAN on this node; Native holds",
                "spec.network.mtu: 100 is not from 1280 to 65535; 1280 holds",
                "spec.network.nativeRoutes: this version cannot do it on this node; Disabled holds",
                "spec.network.nonMasqueradeCIDRs[0]: \"ten\" is no CIDR; it is left out",
                "spec.policy.establishedConnections: this version judges every connection anew when policy, pods or \
                 addresses change; Reevaluate holds",
                "spec.policy.podStartTimeoutSeconds: 200 is not from 1 to 110; 110 holds",
                "spec.services.socketLoadBalancing: there is no cgroup2 file system on this node; Services are \
                 translated by packet",
            ]
        );
        let (defaults, none) = read(json!({}), UNABLE);
        assert_eq!(none, Vec::<String>::new());
        let expected = NodeSettings {
            pod_start_timeout: Duration::from_secs(110),
            network: Network {
                mtu: Some(1280),
                non_masquerade_cidrs: Vec::new(),
                ..defaults.network.clone()
            },
            ..defaults
        };
        assert_eq!(settings, expected);
    }
}
