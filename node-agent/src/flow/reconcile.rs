//! Adds up a policy log, to hold it against what the kernel counted.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::flow::record::{Disposition, LogDirection, LossRecord, PolicyName, PolicyRecord};

/// What the lines of a log add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    pub lines: u64,
    /// Lines that are no record (torn by a crash, or written by somebody else).
    pub unreadable: u64,
    pub rules: BTreeMap<RuleKey, RuleSum>,
    /// Sum of `lost`.
    pub lost: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    /// Line numbers that are missing between the first and the last.
    pub gaps: u64,
}

/// Whose decision a record reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    pub direction: LogDirection,
    pub policies: Vec<PolicyName>,
    pub rule: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleSum {
    /// Connections.
    pub allowed: u64,
    /// Packets.
    pub denied: u64,
}

impl Reconciled {
    /// Connections and packets over all rules.
    pub fn counted(&self) -> u64 {
        self.rules.values().map(|sum| sum.allowed + sum.denied).sum()
    }
}

/// Reads the lines of a log, oldest first.
pub fn reconcile<'a>(lines: impl IntoIterator<Item = &'a str>) -> Reconciled {
    let mut sums = Reconciled::default();
    for line in lines {
        match serde_json::from_str::<Line>(line) {
            Ok(line) => add(&mut sums, line),
            Err(_) => sums.unreadable += 1,
        }
    }
    sums
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Loss(LossRecord),
    Record(Box<PolicyRecord>),
}

fn add(sums: &mut Reconciled, line: Line) {
    let (seq, lost) = match &line {
        Line::Loss(loss) => (loss.seq, loss.lost),
        Line::Record(record) => (record.seq, record.lost),
    };
    sums.lines += 1;
    sums.lost += lost;
    sums.first_seq.get_or_insert(seq);
    sums.gaps += sums
        .last_seq
        .map_or(0, |last| seq.saturating_sub(last.saturating_add(1)));
    sums.last_seq = Some(seq);
    if let Line::Record(record) = line {
        let key = RuleKey {
            direction: record.connection.direction,
            policies: record.policies,
            rule: record.rule,
        };
        let sum = sums.rules.entry(key).or_default();
        match record.disposition {
            Disposition::Allow => sum.allowed += record.count,
            Disposition::Deny => sum.denied += record.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::decode::tests::event;
    use crate::flow::enrich::tests::enrich;
    use crate::flow::names::tests::names;

    #[test]
    fn a_log_adds_up_by_rule() {
        let [allowed, denied] =
            <[PolicyRecord; 2]>::try_from(enrich(&event(), &names()).0).expect("both sides");
        let key = |record: &PolicyRecord| RuleKey {
            direction: record.connection.direction,
            policies: record.policies.clone(),
            rule: record.rule.clone(),
        };
        let expected = Reconciled {
            lines: 4,
            unreadable: 2,
            rules: BTreeMap::from([
                (
                    key(&allowed),
                    RuleSum {
                        allowed: 1,
                        denied: 0,
                    },
                ),
                (
                    key(&denied),
                    RuleSum {
                        allowed: 0,
                        denied: 7,
                    },
                ),
            ]),
            lost: 12,
            first_seq: Some(1),
            last_seq: Some(6),
            gaps: 2,
        };
        let line = |record: PolicyRecord| serde_json::to_string(&record).expect("JSON");
        let loss = LossRecord {
            node_name: "n1".to_owned(),
            timestamp: String::new(),
            seq: 6,
            lost: 10,
        };
        let log = [
            line(PolicyRecord { seq: 1, ..allowed }),
            line(PolicyRecord {
                seq: 2,
                lost: 2,
                count: 3,
                ..denied.clone()
            }),
            r#"{"connection":{"src_"#.to_owned(),
            line(PolicyRecord {
                seq: 5,
                count: 4,
                ..denied
            }),
            serde_json::to_string(&loss).expect("JSON"),
            String::new(),
        ];
        assert_eq!(reconcile(log.iter().map(String::as_str)), expected);
    }
}
