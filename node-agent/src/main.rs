//! The agent's command.

use std::process::ExitCode;

use clap::Parser as _;
use weir_agent::args::Arguments;
use weir_agent::run::run;

fn main() -> ExitCode {
    run(Arguments::parse())
}
