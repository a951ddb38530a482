//! From the command line to the command.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command};
use crate::{kernel, standalone};

/// Runs the command; an error is printed with its causes.
pub fn run(arguments: Arguments) -> ExitCode {
    match try_run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(arguments: Arguments) -> Result<()> {
    start_log(&arguments)?;
    match arguments.command {
        Command::Standalone(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("starting the runtime")?;
            runtime.block_on(standalone::run(*args))
        }
        Command::Remove(place) => kernel::remove_all(&place.bpffs, &place.state_dir),
    }
}

fn start_log(arguments: &Arguments) -> Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("--log {:?} is no filter", arguments.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if arguments.log_json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}
