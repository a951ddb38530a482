//! What the benchmarks found: told to people as they go, then a line a figure, and kept in a file if that is wanted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::arguments::Options;
use crate::figure::Figure;
use crate::machine::Machine;

#[derive(Debug)]
pub struct Report {
    machine: Machine,
    figures: Vec<Figure>,
    /// What the figures were made from.
    samples: Vec<Value>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Report {
        Report {
            machine,
            figures: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Says on what and how is measured.
    pub(crate) fn introduce(&self, options: &Options) -> Result<()> {
        let Machine {
            kernel,
            cpu,
            cpus,
            load,
            ..
        } = &self.machine;
        say(&format!(
            "Linux {kernel}, {cpus} x {cpu}, load {load}; measuring on CPU {}",
            options.cpu()
        ))?;
        if options.quick {
            say("--quick: these figures mean nothing")?;
        } else if self.machine.is_busy() {
            say("the machine is busy: figures will be too high and vary")?;
        }
        Ok(())
    }

    /// Prints a table under its title, and keeps the figures for the end.
    pub(crate) fn add(&mut self, title: &str, table: &str, figures: Vec<Figure>) -> Result<()> {
        say(&format!("\n== {title}\n{table}"))?;
        self.figures.extend(figures);
        Ok(())
    }

    /// Keeps a measurement as it came, for the file.
    pub(crate) fn keep(&mut self, benchmark: &str, sample: &impl Serialize) -> Result<()> {
        self.samples
            .push(json!({ "benchmark": benchmark, "sample": sample }));
        Ok(())
    }

    /// Prints every figure.
    pub(crate) fn finish(&self, options: &Options) -> Result<()> {
        if let Some(directory) = &options.save {
            self.save(directory)?;
        }
        let lines: Vec<String> = self.figures.iter().map(ToString::to_string).collect();
        say(&format!("\n{}", lines.join("\n")))
    }

    /// Appends, so that runs of one day stand one after the other, each after its machine.
    fn save(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let path = directory.join(self.machine.file_name());
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        file.write_all(self.lines()?.as_bytes())
            .with_context(|| format!("write {}", path.display()))?;
        say(&format!("\nsaved in {}", path.display()))
    }

    fn lines(&self) -> Result<String> {
        let mut text = serde_json::to_string(&json!({ "machine": self.machine }))? + "\n";
        for sample in &self.samples {
            text += &(serde_json::to_string(sample)? + "\n");
        }
        for figure in &self.figures {
            text += &(serde_json::to_string(&json!({ "figure": figure, "result": figure.word() }))? + "\n");
        }
        Ok(text)
    }
}

pub(crate) fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("print")
}

/// For who waits; not part of the result.
pub(crate) fn progress(text: &str) {
    eprintln!("   {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Goal, Unit};

    #[test]
    fn a_file_has_the_machine_then_samples_then_figures() {
        let machine = Machine {
            kernel: "6.18".to_owned(),
            cpu: "A".to_owned(),
            cpus: 2,
            load: 0.5,
            time: "2026-11-24T15:00:00Z".to_owned(),
        };
        let mut report = Report::new(machine);
        report.keep("tax", &[1, 2]).expect("kept");
        report
            .figures
            .push(Figure::new("m", 91.0, Unit::Ns, Goal::AtMost(90.0)));
        let expected = concat!(
            r#"{"machine":{"cpu":"A","cpus":2,"kernel":"6.18","load":0.5,"time":"2026-11-24T15:00:00Z"}}"#,
            "\n",
            r#"{"benchmark":"tax","sample":[1,2]}"#,
            "\n",
            r#"{"figure":{"goal":"<=90","metric":"m","unit":"ns","value":91.0},"result":"short"}"#,
            "\n",
        );
        assert_eq!(report.lines().expect("lines"), expected);
    }
}
