//! The operator's command.

use std::process::ExitCode;

use clap::Parser as _;
use weir_operator::args::Arguments;
use weir_operator::run::run;

fn main() -> ExitCode {
    run(&Arguments::parse())
}
