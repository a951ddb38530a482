//! The binary that the container runtime runs for each pod. See the library.

use std::env;
use std::io;
use std::process::ExitCode;

use weir_cni::{agent, plugin};

fn main() -> ExitCode {
    let outcome = plugin::run(|name| env::var_os(name), io::stdin().lock(), agent::ask);
    if plugin::finish(&outcome, io::stdout().lock(), io::stderr().lock()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
