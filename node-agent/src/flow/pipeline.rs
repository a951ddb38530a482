//! The pure part of the policy log, from a raw record to the records that are to be written.

use std::ops::AddAssign;

use crate::flow::aggregate::{AggregateSettings, Aggregator};
use crate::flow::budget::RecordBudget;
use crate::flow::decode::decode;
use crate::flow::enrich::{due, name};
use crate::flow::kernel_loss::KernelLosses;
use crate::flow::names::Names;
use crate::flow::record::{Disposition, PolicyRecord};
use crate::flow::sequence::Sequences;

/// Holds what must be remembered between two records. Times are nanoseconds of a clock that does not go back.
#[derive(Debug, Clone)]
pub struct Pipeline {
    sequences: Sequences,
    kernel_losses: KernelLosses,
    aggregator: Aggregator,
    budget: RecordBudget,
}

/// What a step of the pipeline brought forth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To be given to the sink, in this order.
    pub records: Vec<PolicyRecord>,
    pub losses: Losses,
    /// Rule numbers that nobody knows a name for; the record is written without its policies.
    pub unknown_rules: u64,
}

/// Where records were lost: connections and packets for which one was due (a folded record loses its whole count).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Before they reached the agent: by the kernel's budget, or a full ring buffer.
    pub kernel: u64,
    /// In events, since what cannot be read does not say how many sides it is about.
    pub undecodable: u64,
    /// By the node's budget.
    pub over_budget: u64,
}

impl Outcome {
    /// Puts what came forth later behind this.
    pub fn extend(&mut self, later: Self) {
        self.records.extend(later.records);
        self.losses += later.losses;
        self.unknown_rules += later.unknown_rules;
    }

    fn add(&mut self, (record, unknown_rules): (PolicyRecord, u64)) {
        self.records.push(record);
        self.unknown_rules += unknown_rules;
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.kernel += other.kernel;
        self.undecodable += other.undecodable;
        self.over_budget += other.over_budget;
    }
}

impl Losses {
    pub fn total(self) -> u64 {
        self.kernel + self.undecodable + self.over_budget
    }
}

impl Pipeline {
    pub fn new(aggregate: AggregateSettings, records_per_second: u32) -> Self {
        Self {
            sequences: Sequences::default(),
            kernel_losses: KernelLosses::default(),
            aggregator: Aggregator::new(aggregate),
            budget: RecordBudget::new(records_per_second),
        }
    }

    /// A pipeline with other settings that knows of losses what this one knows. What waits here stays here.
    #[must_use]
    pub fn with_settings(&self, aggregate: AggregateSettings, records_per_second: u32) -> Self {
        Self {
            sequences: self.sequences.clone(),
            kernel_losses: self.kernel_losses.clone(),
            ..Self::new(aggregate, records_per_second)
        }
    }

    /// Takes one raw record.
    pub fn take(&mut self, now: u64, bytes: &[u8], names: &Names) -> Outcome {
        let mut outcome = Outcome::default();
        let event = match decode(bytes) {
            Ok(event) => event,
            Err(_) => {
                outcome.losses.undecodable = 1;
                return outcome;
            }
        };
        let gap = self.sequences.observe(event.cpu, event.sequence);
        outcome.losses.kernel = self.kernel_losses.gap(gap);
        for due in due(&event) {
            let named = || name(&event, &due, names);
            match due.disposition {
                // Before it is named, which costs more than all the rest.
                Disposition::Allow if !self.budget.admit(now) => outcome.losses.over_budget += 1,
                Disposition::Allow => outcome.add(named()),
                Disposition::Deny => {
                    let (record, unknown_rules) = named();
                    outcome.unknown_rules += unknown_rules;
                    if let Some(record) = self.aggregator.push(now, record) {
                        self.admit(now, record, &mut outcome);
                    }
                }
            }
        }
        outcome
    }

    /// Takes the kernel's count of lost records: `lost` of [`RuleCount`](weir_abi::policy::RuleCount), over all rules
    /// and CPUs. Called when the agent starts, and from time to time: the gaps in the sequence tell of lost events, but
    /// not how many records each of them was.
    pub fn kernel_lost(&mut self, total: u64) -> Losses {
        Losses {
            kernel: self.kernel_losses.counted(total),
            ..Losses::default()
        }
    }

    /// Brings out the denials whose time has come.
    pub fn tick(&mut self, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        for record in self.aggregator.expired(now) {
            self.admit(now, record, &mut outcome);
        }
        outcome
    }

    /// When [`tick`](Self::tick) next has something to do.
    pub fn next_tick(&self) -> Option<u64> {
        self.aggregator.next_expiry()
    }

    /// Brings out everything, whatever the budget says: there is no later line in which a loss could be told.
    pub fn close(&mut self) -> Vec<PolicyRecord> {
        self.aggregator.drain()
    }

    fn admit(&mut self, now: u64, record: PolicyRecord, outcome: &mut Outcome) {
        if self.budget.admit(now) {
            outcome.records.push(record);
        } else {
            outcome.losses.over_budget += record.count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use weir_abi::event::FlowEvent;

    use super::*;
    use crate::flow::decode::tests::{encode, event};
    use crate::flow::enrich::tests::enrich;
    use crate::flow::names::tests::names;

    #[test]
    fn an_event_passes_allowed_at_once_and_denied_after_the_window() {
        let mut pipeline = Pipeline::new(AggregateSettings::default(), 500);
        let expected = enrich(&event(), &names()).0;
        let taken = pipeline.take(0, &encode(&event()), &names());
        assert_eq!(
            taken,
            Outcome {
                records: vec![expected[0].clone()],
                ..Outcome::default()
            }
        );
        let due = pipeline.next_tick().expect("a denial waits");
        assert_eq!(due, 5_000_000_000);
        let mut denied = expected[1].clone();
        denied.connection.src_port = 0;
        assert_eq!(
            pipeline.tick(due),
            Outcome {
                records: vec![denied],
                ..Outcome::default()
            }
        );
        assert_eq!(pipeline.close(), []);
    }

    #[test]
    fn every_way_to_lose_a_record_is_counted() {
        let mut pipeline = Pipeline::new(
            AggregateSettings {
                window: Duration::ZERO,
                capacity: 0,
            },
            2,
        );
        let at = |sequence| encode(&FlowEvent { sequence, ..event() });
        assert_eq!(pipeline.kernel_lost(40), Losses::default());
        assert_eq!(pipeline.take(0, &at(1), &names()).losses, Losses::default());
        let taken = pipeline.take(0, &at(5), &names());
        assert_eq!(
            taken.losses,
            Losses {
                kernel: 3,
                over_budget: 2,
                undecodable: 0
            }
        );
        assert_eq!(taken.losses.total(), 5);
        let taken = pipeline.take(0, b"none of ours", &names());
        let undecodable = Losses {
            undecodable: 1,
            ..Losses::default()
        };
        assert_eq!(
            taken,
            Outcome {
                losses: undecodable,
                ..Outcome::default()
            }
        );
        assert_eq!(
            pipeline.kernel_lost(46),
            Losses {
                kernel: 3,
                ..Losses::default()
            }
        );
    }

    proptest! {
        /// Records and losses add up to what the kernel counted, whatever comes or is lost, in whatever order and at
        /// whatever pace.
        #[test]
        fn counts_and_losses_add_up(
            arrivals in proptest::collection::vec(
                (0_u64..2_000_000_000, 0_u16..4, 0_u16..3, 1_u8..4, any::<bool>(), any::<bool>()),
                0..200,
            ),
            window in 0_u64..3,
            capacity in 0_usize..4,
            rate in 0_u32..5,
        ) {
            let settings = AggregateSettings { window: Duration::from_secs(window), capacity };
            let mut pipeline = Pipeline::new(settings, rate);
            let (mut now, mut logged, mut kernel_lost) = (0, 0, 0);
            let (mut written, mut lost) = (0, pipeline.kernel_lost(0).total());
            let mut count = |outcome: Outcome| {
                written += outcome.records.iter().map(|record| record.count).sum::<u64>();
                lost += outcome.losses.total();
            };
            for (sequence, (pause, source_port, destination_port, flags, arrives, asked)) in (0..).zip(arrivals) {
                now += pause;
                let event = FlowEvent { sequence, source_port, destination_port, flags, ..event() };
                logged += u64::from(flags.count_ones());
                if arrives {
                    count(pipeline.take(now, &encode(&event), &names()));
                    count(pipeline.tick(now));
                } else {
                    kernel_lost += u64::from(flags.count_ones());
                }
                if asked {
                    let losses = pipeline.kernel_lost(kernel_lost);
                    count(Outcome { losses, ..Outcome::default() });
                }
            }
            let records = pipeline.close();
            let losses = pipeline.kernel_lost(kernel_lost);
            count(Outcome { records, losses, ..Outcome::default() });
            prop_assert_eq!(written + lost, logged);
        }
    }
}
