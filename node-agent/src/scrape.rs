//! Brings the metrics up to date with the kernel.

use std::collections::BTreeMap;

use anyhow::Result;
use weir_abi::reason::REASONS;
use weir_policy::resolved::{Cause, Direction};

use crate::flow::names::Attribution;
use crate::flow::sink::SinkCounts;
use crate::kernel::FlowTables;
use crate::metrics::{LossStage, Metrics, RuleLabels, RuleTotals};
use crate::programming::Programming;
use crate::table::{Addresses, Backends, Cidrs, Numbers, Policy, Ports, Services, Table, Workloads};

/// What a scrape takes from outside the kernel.
#[derive(Debug, Clone, Default)]
pub struct Scraped {
    /// By kind.
    pub objects: BTreeMap<&'static str, u64>,
    /// By kind of object and of problem.
    pub problems: BTreeMap<(String, String), u64>,
    pub log: SinkCounts,
    /// When idle flows were removed last: counting them takes a walk through both tables.
    pub flows: FlowTables,
}

/// # Errors
///
/// If a map cannot be read.
pub fn scrape(programming: &Programming, scraped: &Scraped, metrics: &Metrics) -> Result<()> {
    let kernel = &programming.kernel;
    let mut packets = vec![0; REASONS as usize];
    for (reason, count) in kernel.packets()? {
        packets[reason as usize] = count;
    }
    metrics.set_packets(&packets);
    metrics.set_rules(&rule_totals(programming)?);
    metrics.set_objects(&scraped.objects, &scraped.problems);
    metrics.set_flow_records(scraped.log.written_allow, scraped.log.written_deny);
    metrics.set_flow_records_lost(LossStage::Queue, scraped.log.lost_queue);
    metrics.set_flow_records_lost(LossStage::Write, scraped.log.lost_write);
    metrics.set_flow_records_lost(LossStage::Kernel, kernel.log_count()?.lost);
    for (name, table) in [("flows4", scraped.flows.v4), ("flows6", scraped.flows.v6)] {
        metrics.set_map(name, u64::from(table.entries), u64::from(table.capacity));
    }
    set_map::<Workloads>(programming, metrics)?;
    set_map::<Addresses>(programming, metrics)?;
    set_map::<Cidrs>(programming, metrics)?;
    set_map::<Policy>(programming, metrics)?;
    set_map::<Ports>(programming, metrics)?;
    set_map::<Services>(programming, metrics)?;
    set_map::<Backends>(programming, metrics)?;
    set_map::<Numbers>(programming, metrics)
}

fn set_map<T: Table>(programming: &Programming, metrics: &Metrics) -> Result<()> {
    let (entries, capacity) = (
        programming.kernel.occupancy::<T>()?,
        programming.kernel.capacity::<T>()?,
    );
    metrics.set_map(T::NAME, u64::from(entries), u64::from(capacity));
    Ok(())
}

fn rule_totals(programming: &Programming) -> Result<BTreeMap<RuleLabels, RuleTotals>> {
    let counts = programming.kernel.rule_counts()?;
    let totals = programming.rules().iter().map(|(number, cause)| {
        let count = counts.get(number).copied().unwrap_or_default();
        (
            labels(cause),
            RuleTotals {
                allowed: count.allowed,
                denied: count.denied,
            },
        )
    });
    Ok(totals.collect())
}

fn labels(cause: &Cause) -> RuleLabels {
    let attribution = Attribution::from(cause);
    let direction = match cause {
        Cause::Rule { direction, .. } | Cause::Isolated { direction, .. } => match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        },
    };
    let first = attribution.policies.into_iter().next();
    RuleLabels {
        kind: first
            .as_ref()
            .map(|policy| policy.kind.clone())
            .unwrap_or_default(),
        namespace: first
            .as_ref()
            .and_then(|policy| policy.namespace.clone())
            .unwrap_or_default(),
        name: first.map(|policy| policy.name).unwrap_or_default(),
        direction,
        rule: attribution.rule.unwrap_or_else(|| "isolation".to_owned()),
    }
}
