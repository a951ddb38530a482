//! Checks what the compiler does not. Each check is a plain function from what was read to a list of findings.

mod dependencies;
mod leaks;
mod licences;
mod names;
mod purity;
mod rust_text;
mod sources;

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use leaks::Places;
use sources::{Source, crates, sources};

/// What is wrong, and where: `path:line: message`.
type Finding = String;

pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let sources = sources(checkout)?;
    let crates = crates(checkout)?;
    let places = Places::of_this_machine(checkout);
    let mut findings = dependencies::check(&crates);
    findings.extend(licences::check(&crates));
    for source in &sources {
        findings.extend(check_file(source, &places));
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} finding(s) above", findings.len());
    }
    println!("{} files and {} crates are in order", sources.len(), crates.len());
    Ok(())
}

fn check_file(source: &Source, places: &Places) -> Vec<Finding> {
    let mut findings = names::check(&source.path);
    findings.extend(names::check_length(source));
    findings.extend(purity::check(source));
    findings.extend(leaks::check(source, places));
    findings
}
