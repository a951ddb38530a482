//! Shows the main job on one machine: a Service, a policy, who gets through, and the log that says why.

#![expect(clippy::print_stdout, reason = "the demo is what it prints")]

mod cast;
mod log;
mod samples;
mod story;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "weir-demo", about)]
struct Arguments {
    /// The objects to show it with
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples"))]
    samples: PathBuf,
}

fn main() -> ExitCode {
    match story::run(&Arguments::parse().samples) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::failed(&error);
            ExitCode::FAILURE
        }
    }
}
