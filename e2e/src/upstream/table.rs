//! What a person reads in the end: a line for each spec.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::report::{Outcome, Report};
use super::specs::Selection;

/// What became of all specs of a selection. Displayed, it is a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    passed: BTreeMap<String, Duration>,
    failed: BTreeMap<String, Failed>,
    /// By why.
    not_run: BTreeMap<String, Vec<String>>,
    /// What failed outside of specs.
    around: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Failed {
    state: String,
    after: Duration,
    /// The first line of what it said.
    cause: String,
}

impl Table {
    pub(super) fn new(selection: &Selection, report: &Report) -> Self {
        let mut table = Self {
            passed: BTreeMap::new(),
            failed: BTreeMap::new(),
            not_run: BTreeMap::new(),
            around: report.around.clone(),
        };
        for name in &selection.chosen {
            table.add(name, report.specs.get(name));
        }
        for (name, why) in &selection.excluded {
            table.leave_out(name, why);
        }
        table
    }

    fn add(&mut self, name: &str, outcome: Option<&Outcome>) {
        match outcome {
            Some(Outcome::Passed(after)) => {
                self.passed.insert(name.to_owned(), *after);
            }
            Some(Outcome::Failed {
                state,
                after,
                message,
            }) => {
                let failed = Failed {
                    state: state.clone(),
                    after: *after,
                    cause: first_line(message).to_owned(),
                };
                self.failed.insert(name.to_owned(), failed);
            }
            Some(Outcome::Skipped(why)) => self.leave_out(name, &format!("says: {}", first_line(why))),
            // A spec that ought to have run is a failure, however the run came to its end.
            None => {
                let failed = Failed {
                    state: "unknown".to_owned(),
                    after: Duration::ZERO,
                    cause: "the run ended before it".to_owned(),
                };
                self.failed.insert(name.to_owned(), failed);
            }
        }
    }

    fn leave_out(&mut self, name: &str, why: &str) {
        self.not_run
            .entry(why.to_owned())
            .or_default()
            .push(name.to_owned());
    }

    /// Whether a spec failed or did not come to its turn, or what ginkgo runs around specs failed.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        !self.failed.is_empty() || !self.around.is_empty()
    }

    /// Such as `46 passed, 1 failed, 3 not run`.
    #[must_use]
    pub fn totals(&self) -> String {
        format!(
            "{} passed, {} failed, {} not run",
            self.passed.len(),
            self.failed.len(),
            self.not_run.values().map(Vec::len).sum::<usize>()
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:<11} {:>7}  SPEC", "RESULT", "SECONDS")?;
        for (name, after) in &self.passed {
            row(formatter, "passed", *after, name)?;
        }
        for (name, failed) in &self.failed {
            row(formatter, &failed.state, failed.after, name)?;
            writeln!(formatter, "{:19}  {}", "", failed.cause)?;
        }
        for (why, names) in &self.not_run {
            for name in names {
                writeln!(formatter, "{:<11} {:>7}  {name}", "not run", "")?;
            }
            writeln!(formatter, "{:19}  {why}", "")?;
        }
        for failure in &self.around {
            writeln!(formatter, "outside of specs: {failure}")?;
        }
        write!(formatter, "{}", self.totals())
    }
}

fn row(formatter: &mut fmt::Formatter<'_>, result: &str, after: Duration, name: &str) -> fmt::Result {
    writeln!(formatter, "{result:<11} {:>7.1}  {name}", after.as_secs_f64())
}

fn first_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(state: &str, message: &str) -> Outcome {
        Outcome::Failed {
            state: state.to_owned(),
            after: Duration::from_millis(30_120),
            message: message.to_owned(),
        }
    }

    #[test]
    fn shows_every_spec_of_the_selection() {
        let selection = Selection {
            chosen: ["a", "b", "c", "d"].map(str::to_owned).into(),
            excluded: [("x".to_owned(), "needs SCTP"), ("y".to_owned(), "needs SCTP")].into(),
        };
        let report = Report {
            specs: BTreeMap::from([
                ("a".to_owned(), Outcome::Passed(Duration::from_millis(9_960))),
                ("b".to_owned(), failed("timedout", "\nwrong results\nand more")),
                ("c".to_owned(), Outcome::Skipped("Requires 3 nodes\n".to_owned())),
            ]),
            around: Vec::new(),
        };
        let table = Table::new(&selection, &report);
        assert_eq!(
            table.to_string(),
            "\
RESULT      SECONDS  SPEC
passed         10.0  a
timedout       30.1  b
                     wrong results
unknown         0.0  d
                     the run ended before it
not run              x
not run              y
                     needs SCTP
not run              c
                     says: Requires 3 nodes
1 passed, 2 failed, 3 not run"
        );
        assert!(table.has_failures());
    }

    #[test]
    fn only_what_passed_or_left_itself_out_is_no_failure() {
        let selection = Selection {
            chosen: [String::from("a")].into(),
            ..Selection::default()
        };
        let mut report = Report {
            specs: [("a".to_owned(), Outcome::Passed(Duration::ZERO))].into(),
            around: Vec::new(),
        };
        assert!(!Table::new(&selection, &report).has_failures());
        report.around.push("AfterSuite failed: x".to_owned());
        assert!(Table::new(&selection, &report).has_failures());
    }
}
