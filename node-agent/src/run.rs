//! From the command line to the command.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::args::{Arguments, Command};
use crate::log_level::LogFilter;
use crate::{cluster, node_bpffs, remove, standalone};

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
    let log = start_log(&arguments)?;
    match arguments.command {
        Command::Run(args) => runtime()?.block_on(cluster::run(*args, log)),
        Command::Standalone(args) => runtime()?.block_on(standalone::run(*args)),
        Command::MountBpffs(args) => node_bpffs::mount(&args.host_proc, &args.host_bpffs).map(|_| ()),
        Command::Remove(args) => runtime()?.block_on(remove::run(&args)),
    }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")
}

fn start_log(arguments: &Arguments) -> Result<LogFilter> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("--log {:?} is no filter", arguments.log))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    if arguments.log_json {
        registry.with(lines.json()).init()
    } else {
        registry.with(lines).init()
    }
    Ok(LogFilter::new(handle, arguments.log.clone()))
}
