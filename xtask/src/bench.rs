//! Runs the benchmarks, on optimised programs.

use anyhow::Result;

use crate::args::PassedOn;
use crate::checkout::Checkout;
use crate::demo::{build_release, run_release};
use crate::setup;

pub(crate) fn run(checkout: &Checkout, options: &PassedOn) -> Result<()> {
    println!("== setup: what this machine lacks");
    setup::run()?;
    println!("== build: the agent and the benchmarks, optimised (some minutes the first time)");
    build_release(
        checkout,
        &["weir-agent", "weir-bench", "weir-operator", "weir-testbed"],
    )?;
    println!("== bench");
    run_release(checkout, "weir-bench", "weir-bench", &options.arguments)
}
