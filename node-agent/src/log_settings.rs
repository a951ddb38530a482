//! How the policy log of this node is written, from the FlowLogPolicies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_policy::lower::FlowLog;

use crate::flow::aggregate::AggregateSettings;
use crate::flow::file::FileSettings;
use crate::log_reader::LogSettings;

/// Where there is no FlowLogPolicy, nothing is logged; the settings are those of GKE all the same.
const DEFAULT_PATH: &str = "/var/log/network/policy_action.log";
const DEFAULT_BUDGET: u32 = 500;

/// A node has one log: the first policy by name says how it is written, whose traffic it holds is said by all. The
/// names of the policies that ask for another way come with it.
#[must_use]
pub fn log_settings(logs: &BTreeMap<String, FlowLog>, path: Option<&Path>) -> (LogSettings, Vec<String>) {
    let Some(first) = logs.values().next() else {
        let path = path.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned);
        let settings = LogSettings {
            aggregate: AggregateSettings::default(),
            records_per_second: DEFAULT_BUDGET,
            file: FileSettings::new(path),
        };
        return (settings, Vec::new());
    };
    let settings = of(first, path);
    let others = logs.iter().filter(|(_, log)| of(log, path) != settings);
    let names = others.map(|(name, _)| name.clone()).collect();
    (settings, names)
}

fn of(log: &FlowLog, path: Option<&Path>) -> LogSettings {
    LogSettings {
        aggregate: AggregateSettings {
            window: Duration::from_secs(u64::from(log.deny_seconds)),
            ..AggregateSettings::default()
        },
        records_per_second: log.records_per_second,
        file: FileSettings {
            path: path.map_or_else(|| PathBuf::from(&log.path), Path::to_owned),
            max_bytes: u64::from(log.max_size_megabytes) * 1_000_000,
            max_files: log.max_files as usize,
        },
    }
}
