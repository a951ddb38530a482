//! What runs in the virtual machines of `cargo xtask vmtest`: as process 1 it furnishes the machine, runs the checks,
//! and turns the machine off; told `programs`, it is one of the checks.
//!
//! All that the host is to know are lines on the console that begin with `weir-guest: `.
#![expect(clippy::print_stdout, reason = "the console is how the host hears of it")]

mod boot;
mod checks;
mod programs;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let result = if std::process::id() == 1 {
        // The firmware leaves its line open.
        println!();
        let done = boot::furnish().and_then(|()| checks::run());
        if let Err(error) = &done {
            println!("weir-guest: problem {error:#}");
        }
        boot::turn_off()
    } else {
        told(std::env::args().nth(1).as_deref())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn told(task: Option<&str>) -> Result<()> {
    match task {
        Some("programs") => programs::run(),
        _ => bail!("process 1 of a virtual machine, or `weir-guest programs`"),
    }
}
