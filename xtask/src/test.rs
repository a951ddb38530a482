//! Every check and test of the project, in one run.

mod cargo_test;
mod deny;
mod fuzz;

use anyhow::{Result, bail};
use clap::ValueEnum;
use weir_bpf_build::Toolchain;

use crate::args::{Crdgen, Manifests, Test};
use crate::checkout::Checkout;
use crate::leftovers;
use crate::steps::{Outcome, Steps};
use crate::{crdgen, demo, helm, manifests, process, setup, tidy, vmtest};
use cargo_test::Totals;

/// The steps that can be chosen; in the order in which they run. Setting up and looking for what was left behind
/// belong to every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// What the compiler does not check
    Tidy,
    /// The CustomResourceDefinitions and config/default are made from what they should be
    Generated,
    /// Formatting of the workspace, bpf/ and fuzz/
    Fmt,
    /// Lints of the workspace and bpf/
    Clippy,
    /// Licences, sources and duplicates of the dependencies
    Deny,
    /// Each fuzz target for a short time
    Fuzz,
    /// The demo, on a debug build
    Demo,
    /// The programs and the demo on older kernels, emulated
    Kernels,
    /// cargo test
    Tests,
}

impl Step {
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Tidy => ("tidy", "dependency edges, purity, names, sizes, leaks, licences"),
            Self::Generated => ("generated", "the CustomResourceDefinitions and config/default"),
            Self::Fmt => ("fmt", "formatting"),
            Self::Clippy => ("clippy", "lints, warnings are errors"),
            Self::Deny => ("deny", "licences, sources and duplicates of the dependencies"),
            Self::Fuzz => ("fuzz", "each target for a short time"),
            Self::Demo => ("demo", "the main job, on a debug build"),
            Self::Kernels => ("kernels", "the programs and the demo on older kernels, emulated"),
            Self::Tests => ("tests", "cargo test, the whole workspace"),
        }
    }
}

pub(crate) fn run(checkout: &Checkout, options: &Test) -> Result<()> {
    let before = leftovers::find(checkout)?;
    let mut steps = Steps::default();
    steps.run("setup", "what this machine lacks", || {
        setup::run()?;
        setup::checkers()?;
        Ok(Outcome::Passed)
    });
    let mut totals = None;
    if steps.failed().is_empty() {
        for step in Step::value_variants()
            .iter()
            .copied()
            .filter(|step| is_chosen(*step, options))
        {
            let (name, what) = step.describe();
            steps.run(name, what, || perform(step, checkout, options, &mut totals));
        }
    }
    steps.run("leftovers", "what the run left on this machine", || {
        leftovers::none_new(checkout, &before).map(|()| Outcome::Passed)
    });
    conclude(&steps, totals)
}

fn is_chosen(step: Step, options: &Test) -> bool {
    (options.only.is_empty() || options.only.contains(&step)) && !options.skip.contains(&step)
}

fn perform(step: Step, checkout: &Checkout, options: &Test, totals: &mut Option<Totals>) -> Result<Outcome> {
    match step {
        Step::Tidy => tidy::run(checkout).map(|()| Outcome::Passed),
        Step::Generated => generated(checkout),
        Step::Fmt => fmt(checkout),
        Step::Clippy => clippy(checkout),
        Step::Deny => deny::run(checkout),
        Step::Fuzz => fuzz::run(checkout, options.fuzz_seconds),
        Step::Demo => demo::run_debug(checkout).map(|()| Outcome::Passed),
        Step::Kernels => vmtest::as_step(checkout),
        Step::Tests => cargo_test::run(checkout, totals),
    }
}

fn generated(checkout: &Checkout) -> Result<Outcome> {
    crdgen::run(checkout, &Crdgen { check: true })?;
    if !helm::can_be_had()? {
        return Ok(Outcome::Skipped(
            "config/default: no Go to compile Helm with".to_owned(),
        ));
    }
    manifests::run(checkout, &Manifests { check: true })?;
    Ok(Outcome::Passed)
}

fn fmt(checkout: &Checkout) -> Result<Outcome> {
    process::run(checkout.cargo("fmt").args(["--all", "--", "--check"]))?;
    for manifest in ["bpf/Cargo.toml", "fuzz/Cargo.toml"] {
        process::run(
            checkout
                .cargo("fmt")
                .args(["--manifest-path", manifest, "--", "--check"]),
        )?;
    }
    Ok(Outcome::Passed)
}

fn clippy(checkout: &Checkout) -> Result<Outcome> {
    const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];
    let mut workspace = checkout.cargo("clippy");
    process::run(
        workspace
            .args(["--workspace", "--all-targets", "--locked"])
            .args(DENY_WARNINGS),
    )?;

    let tree = checkout.bpf();
    let Some(mut programs) = Toolchain::find()?.clippy() else {
        println!("bpf/: not linted, its toolchain has no clippy");
        return Ok(Outcome::Passed);
    };
    programs
        .args(["--release", "--locked", "--bins", "--target-dir"])
        .arg(tree.target());
    process::run(programs.args(DENY_WARNINGS).current_dir(tree.programs()))?;
    Ok(Outcome::Passed)
}

fn conclude(steps: &Steps, totals: Option<Totals>) -> Result<()> {
    println!("\n== summary\n{}", steps.summary());
    let failed = steps.failed();
    for name in &failed {
        let again = match *name {
            "setup" => "setup",
            "leftovers" => "clean-up",
            step => &format!("test --only {step}"),
        };
        println!("again, alone: cargo xtask {again}");
    }
    if let Some(totals) = totals {
        println!("{totals}");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
