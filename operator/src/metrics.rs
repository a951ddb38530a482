//! The operator's metrics.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::world::Kind;

#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    writes: IntCounterVec,
    watch_failures: IntCounterVec,
    plan_seconds: Histogram,
    round_seconds: Histogram,
    leading: IntGauge,
    nodes: IntGauge,
    nodes_cut_off: IntGauge,
    identities: IntGauge,
    address_book_revision: IntGauge,
}

/// What became of a request that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    Done,
    Failed,
}

impl Metrics {
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = vec![0.001, 0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            writes: counters(
                "weir_operator_api_writes_total",
                "Requests that write, by kind of object and result.",
                &["kind", "result"],
            )?,
            watch_failures: counters(
                "weir_operator_watch_failures_total",
                "Watches that failed and were started again.",
                &["kind"],
            )?,
            plan_seconds: seconds(
                "weir_operator_plan_seconds",
                "Time to plan for the whole cluster.",
            )?,
            round_seconds: seconds(
                "weir_operator_round_seconds",
                "Time to write what a plan asks for, statuses apart.",
            )?,
            leading: gauge("weir_operator_leading", "1 while this replica leads.")?,
            nodes: gauge("weir_operator_nodes", "Nodes that are planned for.")?,
            nodes_cut_off: gauge(
                "weir_operator_nodes_cut_off",
                "Nodes whose agents have not renewed their Leases in time.",
            )?,
            identities: gauge("weir_operator_identities", "Identities in the address book.")?,
            address_book_revision: gauge(
                "weir_operator_address_book_revision",
                "Revision of the heads of the address book.",
            )?,
            registry,
        })
    }

    pub fn wrote(&self, kind: &str, result: WriteResult) {
        let result = match result {
            WriteResult::Done => "done",
            WriteResult::Failed => "failed",
        };
        self.writes.with_label_values(&[kind, result]).inc();
    }

    /// How many requests have written an object of the kind.
    #[must_use]
    pub fn writes(&self, kind: &str) -> u64 {
        self.writes.with_label_values(&[kind, "done"]).get()
    }

    pub fn watch_failed(&self, kind: Kind) {
        let kind = format!("{kind:?}");
        self.watch_failures.with_label_values(&[kind.as_str()]).inc();
    }

    pub fn planned(&self, took: Duration, nodes: usize, identities: usize) {
        self.plan_seconds.observe(took.as_secs_f64());
        self.nodes.set(gauge(nodes));
        self.identities.set(gauge(identities));
    }

    pub fn finished_round(&self, took: Duration, revision: i64) {
        self.round_seconds.observe(took.as_secs_f64());
        self.address_book_revision.set(revision);
    }

    pub fn cut_off(&self, nodes: usize) {
        self.nodes_cut_off.set(gauge(nodes));
    }

    pub fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// In the Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_shows_what_it_was_told() {
        let metrics = Metrics::new().expect("the names differ");
        metrics.wrote("NodeDataplane", WriteResult::Done);
        metrics.wrote("NodeDataplane", WriteResult::Failed);
        metrics.watch_failed(Kind::Pod);
        metrics.planned(Duration::from_millis(10), 3, 4);
        metrics.finished_round(Duration::from_millis(10), 5);
        metrics.cut_off(6);
        metrics.leads(true);
        let text = metrics.text().expect("text");
        for line in [
            r#"weir_operator_api_writes_total{kind="NodeDataplane",result="done"} 1"#,
            r#"weir_operator_api_writes_total{kind="NodeDataplane",result="failed"} 1"#,
            r#"weir_operator_watch_failures_total{kind="Pod"} 1"#,
            "weir_operator_plan_seconds_count 1",
            "weir_operator_nodes 3",
            "weir_operator_identities 4",
            "weir_operator_round_seconds_count 1",
            "weir_operator_address_book_revision 5",
            "weir_operator_nodes_cut_off 6",
            "weir_operator_leading 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
