//! `FlowLogPolicy` of `dataplane.weir.dev/v1alpha1`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_api::flow_log_policy::{FlowLogPolicySpec, LogDirection, LogVerdict};

use super::Report;
use super::selector::label_selector;
use crate::model::{Namespaces, PodSelector};
use crate::problem::{Code, ObjectRef, Problem};
use crate::resolved::{Direction, Verdict};

/// What a FlowLogPolicy asks for, with every number inside its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLog {
    /// `None` where it was not understood: nothing is logged.
    pub subject: Option<PodSelector>,
    pub verdicts: BTreeSet<Verdict>,
    pub directions: BTreeSet<Direction>,
    /// One in this many allowed connections. At least 1.
    pub allow_every: u16,
    /// 0: denials are not folded.
    pub deny_seconds: u16,
    /// Of one node. At least 1.
    pub records_per_second: u32,
    pub path: String,
    /// Of 1,000,000 bytes. At least 1.
    pub max_size_megabytes: u32,
    /// Besides the file that is written to.
    pub max_files: u32,
}

/// Lowers a FlowLogPolicy. A number out of its range becomes the nearest that is in it.
#[must_use]
pub fn flow_log_policy(name: &str, spec: &FlowLogPolicySpec) -> (FlowLog, Vec<Problem>) {
    let object = ObjectRef {
        kind: "FlowLogPolicy".to_owned(),
        namespace: None,
        name: name.to_owned(),
    };
    let mut report = Report::new(object);
    let file = &spec.sink.file;
    if !file.path.starts_with('/') {
        report.add(
            Code::InvalidValue,
            "spec.sink.file.path",
            format!("{:?} is not an absolute path", file.path),
        );
    }
    let allow_every = clamp(
        spec.sampling.allow_every,
        1..=65535,
        "spec.sampling.allowEvery",
        &mut report,
    );
    let deny_seconds = clamp(
        spec.aggregation.deny_seconds,
        0..=300,
        "spec.aggregation.denySeconds",
        &mut report,
    );
    let log = FlowLog {
        subject: subject(spec, &mut report),
        verdicts: spec.verdicts.iter().copied().map(verdict).collect(),
        directions: spec.directions.iter().copied().map(direction).collect(),
        allow_every: u16::try_from(allow_every).unwrap_or(u16::MAX),
        deny_seconds: u16::try_from(deny_seconds).unwrap_or(u16::MAX),
        records_per_second: clamp(
            spec.budget.records_per_second,
            1..=1_000_000,
            "spec.budget.recordsPerSecond",
            &mut report,
        ),
        path: file.path.clone(),
        max_size_megabytes: clamp(
            file.max_size_megabytes,
            1..=10240,
            "spec.sink.file.maxSizeMegabytes",
            &mut report,
        ),
        max_files: clamp(file.max_files, 0..=1000, "spec.sink.file.maxFiles", &mut report),
    };
    (log, report.problems)
}

fn subject(spec: &FlowLogPolicySpec, report: &mut Report) -> Option<PodSelector> {
    let Some(subject) = &spec.subject else {
        return Some(PodSelector::everything());
    };
    let namespaces = subject.namespace_selector.as_ref();
    let namespaces = label_selector(namespaces, "spec.subject.namespaceSelector", report);
    let pods = label_selector(subject.pod_selector.as_ref(), "spec.subject.podSelector", report);
    let namespaces = Namespaces::Labelled(namespaces.strict().ok()?);
    Some(PodSelector {
        namespaces,
        pods: pods.strict().ok()?,
    })
}

fn clamp(value: i32, range: std::ops::RangeInclusive<i32>, path: &str, report: &mut Report) -> u32 {
    let clamped = value.clamp(*range.start(), *range.end());
    if clamped != value {
        let (least, most) = range.into_inner();
        let message = format!("{value} is not in {least} to {most}; it is read as {clamped}");
        report.add(Code::InvalidValue, path, message);
    }
    clamped.unsigned_abs()
}

fn verdict(written: LogVerdict) -> Verdict {
    match written {
        LogVerdict::Allow => Verdict::Allow,
        LogVerdict::Deny => Verdict::Deny,
    }
}

fn direction(written: LogDirection) -> Direction {
    match written {
        LogDirection::Ingress => Direction::Ingress,
        LogDirection::Egress => Direction::Egress,
    }
}
