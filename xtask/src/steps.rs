//! A run of several steps: a heading and a duration for each, and a summary at the end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Could not be run here, and why.
    Skipped(String),
}

/// The steps that were run, in order. One that fails does not keep the next from running.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: String,
    result: Result<Outcome>,
    took: Duration,
}

impl Steps {
    pub(crate) fn run(&mut self, name: &str, what: &str, work: impl FnOnce() -> Result<Outcome>) {
        println!("\n== {name}: {what}");
        let start = Instant::now();
        let result = work();
        let done = Done {
            name: name.to_owned(),
            result,
            took: start.elapsed(),
        };
        println!("-- {}", done.line());
        self.done.push(done);
    }

    pub(crate) fn failed(&self) -> Vec<&str> {
        self.done
            .iter()
            .filter(|done| done.result.is_err())
            .map(|done| done.name.as_str())
            .collect()
    }

    /// One line a step.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for done in &self.done {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", done.line());
        }
        text
    }
}

impl Done {
    fn line(&self) -> String {
        let (word, detail) = match &self.result {
            Ok(Outcome::Passed) => ("ok", String::new()),
            Ok(Outcome::Skipped(why)) => ("skipped", format!("  {why}")),
            Err(error) => ("FAILED", format!("  {error:#}")),
        };
        format!(
            "{:<10} {word:<8} {:>7.1} s{detail}",
            self.name,
            self.took.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_and_stops_nothing() {
        let mut steps = Steps::default();
        steps.run("first", "fails", || anyhow::bail!("broken"));
        steps.run("second", "passes", || Ok(Outcome::Passed));
        steps.run("third", "cannot run", || {
            Ok(Outcome::Skipped("no tool".to_owned()))
        });
        for done in &mut steps.done {
            done.took = Duration::from_millis(1250);
        }
        assert_eq!(steps.failed(), ["first"]);
        assert_eq!(
            steps.summary(),
            "first      FAILED       1.2 s  broken\n\
             second     ok           1.2 s\n\
             third      skipped      1.2 s  no tool\n"
        );
    }
}
