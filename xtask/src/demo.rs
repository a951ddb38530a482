//! Runs the demo on the agent as it is shipped.

use std::process::Command;

use anyhow::Result;

use crate::args::PassedOn;
use crate::checkout::Checkout;
use crate::{privilege, process, setup};

pub(crate) fn run(checkout: &Checkout, options: &PassedOn) -> Result<()> {
    println!("== setup: what this machine lacks");
    setup::run()?;
    println!("== build: the agent, optimised (some minutes the first time)");
    build_release(checkout, &["weir-agent", "weir-testbed"])?;
    println!("== demo");
    run_release(checkout, "weir-testbed", "weir-demo", &options.arguments)
}

/// The demo as a test: not optimised, with the dependencies that `cargo test` builds anyway.
pub(crate) fn run_debug(checkout: &Checkout) -> Result<()> {
    build_debug(checkout)?;
    let mut cargo = checkout.cargo("run");
    cargo.args(["--quiet", "--locked", "--bin", "weir-demo"]);
    run_beside_agent(checkout, cargo, "debug")
}

/// Programs as they are shipped.
pub(crate) fn build_release(checkout: &Checkout, packages: &[&str]) -> Result<()> {
    let mut cargo = checkout.cargo("build");
    cargo.args(["--release", "--locked"]);
    cargo.args(packages.iter().flat_map(|package| ["-p", package]));
    process::run(&mut cargo)
}

/// All programs, not optimised.
pub(crate) fn build_debug(checkout: &Checkout) -> Result<()> {
    let mut cargo = checkout.cargo("build");
    process::run(cargo.args(["--locked", "--workspace", "--bins"]))
}

/// Runs a program of the workspace, optimised and as root, and tells it where the agent is.
pub(crate) fn run_release(
    checkout: &Checkout,
    package: &str,
    program: &str,
    arguments: &[String],
) -> Result<()> {
    let mut cargo = checkout.cargo("run");
    cargo
        .args([
            "--quiet",
            "--release",
            "--locked",
            "-p",
            package,
            "--bin",
            program,
            "--",
        ])
        .args(arguments);
    run_beside_agent(checkout, cargo, "release")
}

fn run_beside_agent(checkout: &Checkout, mut cargo: Command, profile: &str) -> Result<()> {
    cargo.env("WEIR_AGENT", checkout.target().join(profile).join("weir-agent"));
    privilege::run_built_programs_as_root(&mut cargo)?;
    process::run(&mut cargo)
}
