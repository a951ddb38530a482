//! The project's tasks: set up, build, test, demonstrate, measure. `cargo xtask help` lists them.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool: its standard output is its report"
)]

mod args;
mod bench;
mod build_bpf;
mod checkout;
mod cluster;
mod crdgen;
mod demo;
mod helm;
mod images;
mod leftovers;
mod manifests;
mod privilege;
mod process;
mod setup;
mod steps;
mod test;
mod tidy;
mod tools;
mod vmtest;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Task};
use crate::checkout::Checkout;

fn main() -> ExitCode {
    match run(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let checkout = Checkout::find()?;
    match task {
        Task::Setup => setup::run(),
        Task::BuildBpf(options) => build_bpf::run(&checkout, &options),
        Task::Crdgen(options) => crdgen::run(&checkout, &options),
        Task::Manifests(options) => manifests::run(&checkout, &options),
        Task::Images(options) => images::run(&checkout, &options),
        Task::Tidy => tidy::run(&checkout),
        Task::Demo(options) => demo::run(&checkout, &options),
        Task::Test(options) => test::run(&checkout, &options),
        Task::Vmtest(options) => vmtest::run(&checkout, &options),
        Task::Bench(options) => bench::run(&checkout, &options),
        Task::Cluster(options) => cluster::run(&checkout, &options),
        Task::Kubectl(options) => cluster::kubectl(&checkout, &options),
        Task::E2e(options) => cluster::test(&checkout, &options),
        Task::Upstream(options) => cluster::upstream(&checkout, &options),
        Task::CleanUp(options) => leftovers::run(&checkout, &options),
    }
}
