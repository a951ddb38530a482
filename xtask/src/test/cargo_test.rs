//! `cargo test`, and the sum of what its many closing lines say.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::checkout::Checkout;
use crate::steps::Outcome;
use crate::{privilege, process};

/// Tests over all binaries of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tests: {} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        )
    }
}

pub(super) fn run(checkout: &Checkout, totals: &mut Option<Totals>) -> Result<Outcome> {
    let mut cargo = checkout.cargo("test");
    cargo
        .args(["--workspace", "--locked", "--no-fail-fast"])
        .stdout(Stdio::piped());
    privilege::run_built_programs_as_root(&mut cargo)?;
    println!("$ {}", process::words(&cargo));
    let mut child = cargo.spawn().context("starting cargo test")?;
    let mut sum = Totals::default();
    for line in BufReader::new(child.stdout.take().context("cargo test's output")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(one) = parse_result(&line) {
            sum.passed += one.passed;
            sum.failed += one.failed;
            sum.ignored += one.ignored;
        }
    }
    *totals = Some(sum);
    process::check(&cargo, child.wait()?)?;
    if sum.passed == 0 {
        bail!("cargo test ran no test");
    }
    Ok(Outcome::Passed)
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn parse_result(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| -> Option<u64> {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim_end().parse().ok())
    };
    Some(Totals {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_closing_line() {
        let line = "test result: FAILED. 30 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s";
        assert_eq!(
            parse_result(line),
            Some(Totals {
                passed: 30,
                failed: 2,
                ignored: 1
            })
        );
        assert_eq!(parse_result("test parse::tests::result: ok"), None);
        assert_eq!(parse_result("test result: "), None);
    }

    #[test]
    fn sums_up_in_one_line() {
        let totals = Totals {
            passed: 30,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(totals.to_string(), "tests: 30 passed, 2 failed, 1 skipped");
    }
}
