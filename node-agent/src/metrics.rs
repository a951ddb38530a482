//! What the agent counts, as Prometheus metrics.
//!
//! Nothing here reads the kernel or a file: whoever knows a value passes it in. Totals that live in the kernel are
//! passed as they stand; since the maps are pinned they go on rising when the agent restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use weir_abi::reason::Reason;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    packets: IntCounterVec,
    rule_allowed: IntCounterVec,
    rule_denied: IntCounterVec,
    flow_records: IntCounterVec,
    flow_records_lost: IntCounterVec,
    flow_unknown_rules: IntCounter,
    map_entries: IntGaugeVec,
    map_capacity: IntGaugeVec,
    sync_duration: Histogram,
    sync_writes: IntCounterVec,
    sync_errors: IntCounter,
    programmed_revision: IntGauge,
    cni_request_duration: HistogramVec,
    objects: IntGaugeVec,
    object_problems: IntGaugeVec,
    build_info: IntGaugeVec,
    /// The rules that have series, so that those of a rule that is gone can go too.
    rules: Mutex<BTreeSet<RuleLabels>>,
}

/// Whose decisions are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleLabels {
    /// Kind of the policy; the first of several where they isolate a pod together.
    pub kind: String,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    pub name: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The rule's own name, else its place, as in `ingress[0]`; `isolation` for the implicit denial.
    pub rule: String,
}

/// A rule's totals, as the kernel has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Connections.
    pub allowed: u64,
    /// Packets.
    pub denied: u64,
}

/// Where a record of the policy log was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossStage {
    /// The kernel's own budget was used up, or the ring buffer full: its counters do not tell the two apart.
    Kernel,
    /// It could not be decoded.
    Decode,
    /// Over the node's budget.
    Limit,
    /// The sink's queue was full.
    Queue,
    /// The file could not be written.
    Write,
}

impl LossStage {
    pub const ALL: [Self; 5] = [Self::Kernel, Self::Decode, Self::Limit, Self::Queue, Self::Write];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Decode => "decode",
            Self::Limit => "limit",
            Self::Queue => "queue",
            Self::Write => "write",
        }
    }
}

/// What the agent is, for `weir_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    pub version: &'static str,
    pub abi_version: u32,
}

impl Metrics {
    pub fn new(build: Build) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let rule = &["kind", "namespace", "name", "direction", "rule"];
        let metrics = Self {
            packets: counters(
                r,
                "weir_packets_total",
                "Packets that left a program, by reason.",
                &["reason", "fate"],
            )?,
            rule_allowed: counters(
                r,
                "weir_rule_connections_allowed_total",
                "Connections that a policy rule allowed.",
                rule,
            )?,
            rule_denied: counters(
                r,
                "weir_rule_packets_denied_total",
                "Packets that a policy rule, or the isolation by a policy, denied.",
                rule,
            )?,
            flow_records: counters(
                r,
                "weir_flow_records_total",
                "Lines written to the policy log.",
                &["disposition"],
            )?,
            flow_records_lost: counters(
                r,
                "weir_flow_records_lost_total",
                "Connections and packets whose record was due and is not in the policy log, by where it was lost.",
                &["stage"],
            )?,
            flow_unknown_rules: register(
                r,
                IntCounter::new(
                    "weir_flow_unknown_rules_total",
                    "Records whose rule number has no name, because the rule went while they were under way.",
                )?,
            )?,
            map_entries: gauges(r, "weir_map_entries", "Entries of a kernel map.", &["map"])?,
            map_capacity: gauges(r, "weir_map_capacity", "Most entries that a kernel map holds.", &["map"])?,
            sync_duration: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_sync_duration_seconds",
                        "Time to make the kernel hold the desired state, from the first read to the last write.",
                    )
                    .buckets(prometheus::exponential_buckets(0.000_25, 2.0, 16)?),
                )?,
            )?,
            sync_writes: counters(
                r,
                "weir_sync_writes_total",
                "Entries written to or removed from a kernel map.",
                &["map"],
            )?,
            sync_errors: register(
                r,
                IntCounter::new("weir_sync_errors_total", "Syncs that did not reach the desired state.")?,
            )?,
            programmed_revision: register(
                r,
                IntGauge::new("weir_programmed_revision", "Revision of the policy that the kernel holds.")?,
            )?,
            cni_request_duration: register(
                r,
                HistogramVec::new(
                    HistogramOpts::new(
                        "weir_cni_request_duration_seconds",
                        "Time from a request of the CNI plugin to its answer.",
                    )
                    .buckets(prometheus::exponential_buckets(0.001, 2.0, 16)?),
                    &["verb", "result"],
                )?,
            )?,
            objects: gauges(r, "weir_objects", "API objects that are in force.", &["kind"])?,
            object_problems: gauges(
                r,
                "weir_object_problems",
                "Problems of API objects, by the kind of object and of problem.",
                &["kind", "code"],
            )?,
            build_info: gauges(r, "weir_build_info", "1, labelled with what is running.", &[
                "version",
                "abi_version",
            ])?,
            rules: Mutex::default(),
            registry,
        };
        let abi_version = build.abi_version.to_string();
        metrics
            .build_info
            .with_label_values(&[build.version, abi_version.as_str()])
            .set(1);
        for stage in LossStage::ALL {
            metrics.flow_records_lost.with_label_values(&[stage.word()]);
        }
        Ok(metrics)
    }

    /// Sets the totals by reason number. Numbers that are no reason are left out.
    pub fn set_packets(&self, totals: &[u64]) {
        for (number, &total) in totals.iter().enumerate() {
            if let Some(reason) = u8::try_from(number).ok().and_then(Reason::from_number) {
                let fate = if reason.is_forward() { "forward" } else { "drop" };
                set_total(&self.packets.with_label_values(&[reason.word(), fate]), total);
            }
        }
    }

    /// Sets the totals of all rules there are; the series of every other rule go.
    pub fn set_rules(&self, totals: &BTreeMap<RuleLabels, RuleTotals>) {
        // The set is whole between any two statements, so a panic elsewhere leaves nothing half done.
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.iter().filter(|labels| !totals.contains_key(labels)) {
            // An error means that there is no such series, which is what is wanted.
            let _ = self.rule_allowed.remove_label_values(&gone.values());
            let _ = self.rule_denied.remove_label_values(&gone.values());
        }
        for (labels, totals) in totals {
            set_total(
                &self.rule_allowed.with_label_values(&labels.values()),
                totals.allowed,
            );
            set_total(
                &self.rule_denied.with_label_values(&labels.values()),
                totals.denied,
            );
        }
        *known = totals.keys().cloned().collect();
    }

    /// Sets how many lines the policy log has got.
    pub fn set_flow_records(&self, allow: u64, deny: u64) {
        set_total(&self.flow_records.with_label_values(&["allow"]), allow);
        set_total(&self.flow_records.with_label_values(&["deny"]), deny);
    }

    pub fn add_flow_records_lost(&self, stage: LossStage, count: u64) {
        self.flow_records_lost
            .with_label_values(&[stage.word()])
            .inc_by(count);
    }

    /// Sets the losses of a stage that keeps its own total.
    pub fn set_flow_records_lost(&self, stage: LossStage, total: u64) {
        set_total(&self.flow_records_lost.with_label_values(&[stage.word()]), total);
    }

    pub fn add_flow_unknown_rules(&self, count: u64) {
        self.flow_unknown_rules.inc_by(count);
    }

    pub fn set_map(&self, map: &str, entries: u64, capacity: u64) {
        self.map_entries.with_label_values(&[map]).set(gauge(entries));
        self.map_capacity.with_label_values(&[map]).set(gauge(capacity));
    }

    /// Takes note of a sync that reached the desired state: how long it took and how much it wrote, by map.
    pub fn observe_sync(&self, duration: Duration, writes: &BTreeMap<&str, u64>, revision: u64) {
        self.sync_duration.observe(duration.as_secs_f64());
        for (map, &count) in writes {
            self.sync_writes.with_label_values(&[*map]).inc_by(count);
        }
        self.programmed_revision.set(gauge(revision));
    }

    pub fn add_sync_error(&self) {
        self.sync_errors.inc();
    }

    /// Takes note of an answer to the CNI plugin.
    pub fn observe_cni_request(&self, verb: &str, succeeded: bool, duration: Duration) {
        let result = if succeeded { "success" } else { "failure" };
        self.cni_request_duration
            .with_label_values(&[verb, result])
            .observe(duration.as_secs_f64());
    }

    /// Sets how many objects of each kind are in force, and how many problems of each code there are.
    pub fn set_objects(&self, objects: &BTreeMap<&str, u64>, problems: &BTreeMap<(String, String), u64>) {
        self.objects.reset();
        for (kind, &count) in objects {
            self.objects.with_label_values(&[*kind]).set(gauge(count));
        }
        self.object_problems.reset();
        for ((kind, code), &count) in problems {
            self.object_problems
                .with_label_values(&[kind, code])
                .set(gauge(count));
        }
    }

    /// The text that Prometheus scrapes; its type is [`CONTENT_TYPE`].
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl RuleLabels {
    fn values(&self) -> [&str; 5] {
        [
            &self.kind,
            &self.namespace,
            &self.name,
            self.direction,
            &self.rule,
        ]
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A total that fell has begun anew, as a counter does when its process restarts.
fn set_total(counter: &IntCounter, total: u64) {
    match total.checked_sub(counter.get()) {
        Some(more) => counter.inc_by(more),
        None => {
            counter.reset();
            counter.inc_by(total);
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Build {
            version: "0.1.0",
            abi_version: 1,
        })
        .expect("metrics")
    }

    fn rule(name: &str) -> RuleLabels {
        RuleLabels {
            kind: "NetworkPolicy".to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            direction: "ingress",
            rule: "ingress[0]".to_owned(),
        }
    }

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render().expect("text");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    fn set_all(metrics: &Metrics) {
        let mut totals = vec![0; 64];
        totals[Reason::Isolated as usize] = 3;
        totals[Reason::Established as usize] = 40;
        totals[63] = 9;
        metrics.set_packets(&totals);
        metrics.set_rules(&BTreeMap::from([(
            rule("a"),
            RuleTotals {
                allowed: 5,
                denied: 6,
            },
        )]));
        metrics.set_flow_records(7, 8);
        for (stage, count) in LossStage::ALL.into_iter().zip(10..) {
            metrics.add_flow_records_lost(stage, count);
        }
        metrics.add_flow_unknown_rules(2);
        metrics.set_map("policy", 11, 50_000);
        metrics.observe_sync(Duration::from_millis(3), &BTreeMap::from([("policy", 12)]), 13);
        metrics.add_sync_error();
        metrics.observe_cni_request("add", true, Duration::from_millis(3));
        metrics.set_objects(
            &BTreeMap::from([("Pod", 14)]),
            &BTreeMap::from([(("Pod".to_owned(), "Duplicate".to_owned()), 15)]),
        );
    }

    #[test]
    fn every_declared_metric_is_set_by_some_call() {
        let metrics = metrics();
        set_all(&metrics);
        let set: BTreeSet<String> = metrics
            .registry
            .gather()
            .iter()
            .filter(|family| {
                family.get_metric().iter().any(|metric| {
                    metric.get_counter().get_value() != 0.0
                        || metric.get_gauge().get_value() != 0.0
                        || metric.get_histogram().get_sample_count() != 0
                })
            })
            .map(|family| family.name().to_owned())
            .collect();
        // A family without series is in no registry's answer, so the declarations are read from this file.
        let (code, _) = include_str!("metrics.rs")
            .split_once("#[cfg(test)]")
            .expect("code and tests");
        let declared: BTreeSet<String> = code
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|literal| literal.starts_with("weir_"))
            .map(str::to_owned)
            .collect();
        assert_eq!(set, declared);
    }

    #[test]
    fn the_text_is_what_dashboards_read() {
        let metrics = metrics();
        set_all(&metrics);
        let series = series(&metrics);
        for expected in [
            r#"weir_packets_total{fate="drop",reason="isolated"} 3"#,
            r#"weir_packets_total{fate="forward",reason="established"} 40"#,
            r#"weir_packets_total{fate="drop",reason="no-backend"} 0"#,
            r#"weir_rule_connections_allowed_total{direction="ingress",kind="NetworkPolicy",name="a",namespace="default",rule="ingress[0]"} 5"#,
            r#"weir_rule_packets_denied_total{direction="ingress",kind="NetworkPolicy",name="a",namespace="default",rule="ingress[0]"} 6"#,
            r#"weir_flow_records_total{disposition="allow"} 7"#,
            r#"weir_flow_records_total{disposition="deny"} 8"#,
            r#"weir_flow_records_lost_total{stage="kernel"} 10"#,
            r#"weir_flow_records_lost_total{stage="write"} 14"#,
            r#"weir_map_entries{map="policy"} 11"#,
            r#"weir_map_capacity{map="policy"} 50000"#,
            r#"weir_sync_duration_seconds_count 1"#,
            r#"weir_sync_writes_total{map="policy"} 12"#,
            r#"weir_sync_errors_total 1"#,
            r#"weir_programmed_revision 13"#,
            r#"weir_cni_request_duration_seconds_bucket{result="success",verb="add",le="0.002"} 0"#,
            r#"weir_cni_request_duration_seconds_bucket{result="success",verb="add",le="0.004"} 1"#,
            r#"weir_objects{kind="Pod"} 14"#,
            r#"weir_object_problems{code="Duplicate",kind="Pod"} 15"#,
            r#"weir_build_info{abi_version="1",version="0.1.0"} 1"#,
        ] {
            assert!(
                series.iter().any(|line| line == expected),
                "{expected} is not in {series:#?}"
            );
        }
        let reasons = series
            .iter()
            .filter(|line| line.starts_with("weir_packets_total"))
            .count();
        assert_eq!(reasons, Reason::ALL.len());
    }

    #[test]
    fn totals_are_set_and_not_added() {
        let metrics = metrics();
        let packets = |total| {
            metrics.set_packets(&[total]);
            series(&metrics)
                .into_iter()
                .find(|line| line.starts_with("weir_packets_total"))
                .expect("a series")
        };
        assert_eq!(
            packets(5),
            r#"weir_packets_total{fate="forward",reason="established"} 5"#
        );
        assert_eq!(
            packets(7),
            r#"weir_packets_total{fate="forward",reason="established"} 7"#
        );
        assert_eq!(
            packets(2),
            r#"weir_packets_total{fate="forward",reason="established"} 2"#
        );
    }

    #[test]
    fn what_is_gone_has_no_series() {
        let metrics = metrics();
        set_all(&metrics);
        metrics.set_rules(&BTreeMap::from([(
            rule("b"),
            RuleTotals {
                allowed: 1,
                denied: 0,
            },
        )]));
        metrics.set_objects(&BTreeMap::new(), &BTreeMap::new());
        let left: Vec<String> = series(&metrics)
            .into_iter()
            .filter(|line| line.starts_with("weir_rule") || line.starts_with("weir_object"))
            .collect();
        assert_eq!(
            left,
            [
                r#"weir_rule_connections_allowed_total{direction="ingress",kind="NetworkPolicy",name="b",namespace="default",rule="ingress[0]"} 1"#,
                r#"weir_rule_packets_denied_total{direction="ingress",kind="NetworkPolicy",name="b",namespace="default",rule="ingress[0]"} 0"#,
            ]
        );
    }
}
