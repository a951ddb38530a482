//! What the programs count: summed over CPUs.

use std::collections::BTreeMap;
use std::io;

use weir_abi::config::LogBudget;
use weir_abi::plain::Plain;
use weir_abi::policy::RuleCount;
use weir_abi::reason::Reason;

use super::Kernel;
use super::bytes::{as_bytes, from_bytes};
use super::maps::annotate;

/// What became of records since the maps were made. Never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogCount {
    /// Records that were due, written or not.
    pub due: u64,
    /// Of these, the ones that could not be written.
    pub lost: u64,
}

impl Kernel {
    /// Packets by reason, every reason named.
    pub fn packets(&self) -> io::Result<BTreeMap<Reason, u64>> {
        let mut packets: BTreeMap<Reason, u64> = Reason::ALL.iter().map(|reason| (*reason, 0)).collect();
        self.for_each_counter("counters", |index, cpus: &[u64]| {
            if let Some(reason) = u8::try_from(index).ok().and_then(Reason::from_number) {
                packets.insert(reason, cpus.iter().sum());
            }
        })?;
        Ok(packets)
    }

    /// By rule number; rules that decided nothing are left out.
    pub fn rule_counts(&self) -> io::Result<BTreeMap<u32, RuleCount>> {
        let mut counts = BTreeMap::new();
        self.for_each_counter("rule_counts", |rule, cpus: &[RuleCount]| {
            let sum = cpus.iter().fold(RuleCount::default(), add);
            if sum != RuleCount::default() {
                counts.insert(rule, sum);
            }
        })?;
        Ok(counts)
    }

    /// Zeroes what these rules decided: their numbers will stand for other rules.
    pub fn clear_rule_counts(&mut self, rules: &[u32]) -> io::Result<()> {
        let map = self.map("rule_counts")?;
        map.write(as_bytes(rules), &vec![0; rules.len() * map.widths.value])
            .map_err(|(index, error)| {
                let rule = rules.get(index).copied().unwrap_or_default();
                annotate(error, "rule_counts", &format!("clearing rule {rule}"))
            })
    }

    pub fn log_count(&self) -> io::Result<LogCount> {
        let mut count = LogCount::default();
        self.for_each_counter("log_budget", |_, cpus: &[LogBudget]| {
            count.due += cpus.iter().map(|cpu| cpu.sequence).sum::<u64>();
            count.lost += cpus.iter().map(|cpu| cpu.lost).sum::<u64>();
        })?;
        Ok(count)
    }

    /// Hands out every index of a per-CPU array with its values, one a CPU.
    fn for_each_counter<V: Plain>(&self, name: &str, mut each: impl FnMut(u32, &[V])) -> io::Result<()> {
        let map = self.map(name)?;
        map.for_each_batch(|keys, values| {
            for (key, value) in keys.chunks(map.widths.key).zip(values.chunks(map.widths.value)) {
                let stride = size_of::<V>().next_multiple_of(8);
                let cpus = value
                    .chunks(stride)
                    .map(|cpu| from_bytes(&cpu[..size_of::<V>()]))
                    .collect::<io::Result<Vec<V>>>()?;
                each(from_bytes(key)?, &cpus);
            }
            Ok(())
        })
        .map_err(|error| annotate(error, name, "reading"))
    }
}

fn add(sum: RuleCount, cpu: &RuleCount) -> RuleCount {
    RuleCount {
        allowed: sum.allowed + cpu.allowed,
        denied: sum.denied + cpu.denied,
        logged: sum.logged + cpu.logged,
        lost: sum.lost + cpu.lost,
    }
}
