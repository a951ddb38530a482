//! Records of the flow log: found, judged, shown.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_testbed::Agent;

use crate::tell;

/// Denials are summed up over 5 seconds before they are written.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for a record, after the first `skip`, of a connection from `client` to `server`, that names policies, and
/// shows it with them.
pub(crate) fn show(agent: &Agent, skip: usize, client: &str, server: &str, disposition: &str) -> Result<()> {
    let record = agent.wait_for_flow(skip, PATIENCE, |record| {
        record["disposition"] == disposition
            && record["src"]["pod_name"] == client
            && record["dest"]["pod_name"] == server
            && record["policies"]
                .as_array()
                .is_some_and(|policies| !policies.is_empty())
    })?;
    let (line, record) = (record.line, record.fields);
    let policies: Vec<String> = record["policies"]
        .as_array()
        .into_iter()
        .flatten()
        .map(policy)
        .collect();
    let rule = record["rule"]
        .as_str()
        .map(|rule| format!(", rule {rule}"))
        .unwrap_or_default();
    ensure!(
        disposition != "allow" || !rule.is_empty(),
        "the record does not say which rule decided: {line}"
    );
    let reason = record["reason"].as_str().unwrap_or_default();
    ensure!(!reason.is_empty(), "the record does not say why: {line}");
    tell::check(&format!(
        "{disposition} {client} → {server}: {}{rule} ({reason})",
        policies.join(", ")
    ));
    tell::quote(&line);
    Ok(())
}

fn policy(policy: &Value) -> String {
    let part = |key: &str| policy[key].as_str().unwrap_or_default().to_string();
    let namespace = if part("namespace").is_empty() {
        String::new()
    } else {
        part("namespace") + "/"
    };
    format!("{} {namespace}{}", part("kind"), part("name"))
}
