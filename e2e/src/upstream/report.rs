//! Ginkgo's JSON report: what became of each spec.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::places;

/// What became of one spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed(Duration),
    Failed {
        /// Ginkgo's word: `failed`, `timedout`, `panicked`, `interrupted`, `aborted`.
        state: String,
        after: Duration,
        message: String,
    },
    /// It left itself out, and said why.
    Skipped(String),
}

/// The outcome of all specs that were to run, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) specs: BTreeMap<String, Outcome>,
    /// What failed outside of specs: in what ginkgo runs before and after them all.
    pub(super) around: Vec<String>,
}

/// A suite, with the fields of interest of ginkgo's `types.Report`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
    spec_reports: Vec<Node>,
}

/// Ginkgo's `types.SpecReport`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// In nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Report {
    /// # Errors
    /// It cannot be read, or is no report.
    pub(super) fn read(file: &Path) -> Result<Self> {
        Self::parse(&places::read(file)?).with_context(|| format!("reading {}", file.display()))
    }

    fn parse(json: &str) -> Result<Self> {
        let suites: Vec<Suite> = serde_json::from_str(json)?;
        if suites.is_empty() {
            bail!("no suite is in the report");
        }
        let mut report = Self::default();
        for suite in suites {
            report
                .around
                .extend(suite.special_suite_failure_reasons.unwrap_or_default());
            for node in suite.spec_reports {
                report.add(node);
            }
        }
        Ok(report)
    }

    fn add(&mut self, node: Node) {
        let message = node.failure.map(|failure| failure.message).unwrap_or_default();
        let after = Duration::from_nanos(node.run_time);
        let outcome = match node.state.as_str() {
            "passed" => Outcome::Passed(after),
            // Not among those that were to run.
            "skipped" | "pending" if message.is_empty() => return,
            "skipped" | "pending" => Outcome::Skipped(message),
            _ => Outcome::Failed {
                state: node.state,
                after,
                message,
            },
        };
        if node.leaf_node_type == "It" {
            let mut texts = node.container_hierarchy_texts.unwrap_or_default();
            texts.push(node.leaf_node_text);
            self.specs.insert(texts.join(" "), outcome);
        } else if let Outcome::Failed { state, message, .. } = outcome {
            self.around
                .push(format!("{} {state}: {message}", node.leaf_node_type));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ginkgo 2.28 writes it, without the fields that are not read.
    const JSON: &str = r#"[{"SuiteSucceeded": false, "SpecialSuiteFailureReasons": null, "SpecReports": [
        {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "",
         "State": "passed", "RunTime": 18236271},
        {"ContainerHierarchyTexts": ["[sig-network] Netpol", "between"], "LeafNodeType": "It",
         "LeafNodeText": "a", "State": "passed", "RunTime": 16467023071},
        {"ContainerHierarchyTexts": ["[sig-network] Netpol"], "LeafNodeType": "It", "LeafNodeText": "b",
         "State": "failed", "RunTime": 2000000000, "Failure": {"Message": "had 3 wrong results"}},
        {"ContainerHierarchyTexts": ["[sig-network] Netpol"], "LeafNodeType": "It", "LeafNodeText": "c",
         "State": "skipped", "RunTime": 5, "Failure": {"Message": "Requires 3 nodes"}},
        {"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "d",
         "State": "skipped", "RunTime": 0},
        {"ContainerHierarchyTexts": null, "LeafNodeType": "ReportAfterSuite", "LeafNodeText": "Log Check",
         "State": "timedout", "RunTime": 1, "Failure": {"Message": "too long"}}
    ]}]"#;

    #[test]
    fn reads_what_became_of_each_spec() {
        let expected = Report {
            specs: BTreeMap::from([
                (
                    "[sig-network] Netpol between a".to_owned(),
                    Outcome::Passed(Duration::from_nanos(16_467_023_071)),
                ),
                (
                    "[sig-network] Netpol b".to_owned(),
                    Outcome::Failed {
                        state: "failed".to_owned(),
                        after: Duration::from_secs(2),
                        message: "had 3 wrong results".to_owned(),
                    },
                ),
                (
                    "[sig-network] Netpol c".to_owned(),
                    Outcome::Skipped("Requires 3 nodes".to_owned()),
                ),
            ]),
            around: vec!["ReportAfterSuite timedout: too long".to_owned()],
        };
        assert_eq!(Report::parse(JSON).expect("a report"), expected);
    }

    #[test]
    fn a_report_of_nothing_is_an_error() {
        let error = Report::parse("[]").expect_err("an error");
        assert_eq!(error.to_string(), "no suite is in the report");
        assert!(Report::parse("{}").is_err());
    }
}
