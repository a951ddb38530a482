//! Side-by-side benchmarks of Weir's programs. What is measured and how to read it: `bench/README.md`.
//!
//! - [`tax`]: what the running agent's dataplane adds to a bare veth pair, by real traffic.
//! - [`program`]: what a packet costs in the programs alone, by `BPF_PROG_TEST_RUN`.
//! - [`memory`]: what the maps take with a large cluster in them.
//! - [`api_scale`]: what the operator takes in a large cluster.
//!
//! Each leaves nothing behind. All but the last make what they need in a [`Testbed`], and need root.

pub mod api_scale;
mod arguments;
mod figure;
mod floor;
mod load;
mod machine;
pub mod memory;
mod plain_table;
pub mod program;
mod report;
mod statistics;
pub mod tax;

use anyhow::{Context, Result};
use weir_testbed::{Testbed, clean_up_on_interrupt};

pub use arguments::{Arguments, Benchmark, Options};
pub use figure::{Figure, Goal, Unit};
pub use machine::Machine;
pub use report::Report;
pub use statistics::Spread;

/// Runs the benchmarks that were asked for, prints what they found, and saves it if that was asked for too.
pub fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let mut report = Report::new(Machine::of_this()?);
    report.introduce(options)?;
    match arguments.benchmark.as_ref().unwrap_or(&Benchmark::All) {
        Benchmark::ApiScale(wanted) => api_scale::run(wanted, options, &mut report)?,
        benchmark @ (Benchmark::Tax | Benchmark::Program | Benchmark::Memory | Benchmark::All) => {
            on_testbed(benchmark, options, &mut report)?;
        }
    }
    report.finish(options)
}

/// Runs the benchmarks that use network namespaces.
fn on_testbed(benchmark: &Benchmark, options: &Options, report: &mut Report) -> Result<()> {
    let testbed =
        Testbed::new("bench").context("the benchmarks make network namespaces: run them as root")?;
    clean_up_on_interrupt(&testbed)?;
    if matches!(benchmark, Benchmark::Memory | Benchmark::All) {
        memory::run(&testbed, options, report)?;
    }
    if matches!(benchmark, Benchmark::Program | Benchmark::All) {
        program::run(&testbed, options, report)?;
    }
    if matches!(benchmark, Benchmark::Tax | Benchmark::All) {
        tax::run(&testbed, options, report)?;
    }
    testbed.remove()
}
