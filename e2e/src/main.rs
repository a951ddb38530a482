//! Starts and ends clusters on this machine. `weir-e2e help` lists the tasks.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool: its standard output is its answer"
)]

mod args;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weir_e2e::api_server::ApiServer;
use weir_e2e::cluster::{Cluster, names};
use weir_e2e::down::down;
use weir_e2e::install::{Weir, install};
use weir_e2e::plan::Options;
use weir_e2e::progress::Progress;
use weir_e2e::recipes::Group;
use weir_e2e::status::status;
use weir_e2e::up::up;
use weir_e2e::{build, node, seed, upstream as upstream_tests};

use crate::args::{Args, Task};

fn main() -> ExitCode {
    match run(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let progress = Progress::start();
    match task {
        Task::Build(options) => {
            let groups: Vec<Group> = options.group.into_iter().map(Group::from).collect();
            build::ensure(&groups, progress)
        }
        Task::Apiserver(options) => api_server(&options.state),
        Task::Up(options) => start(options, progress),
        Task::Down(cluster) => down(&cluster.name, progress),
        Task::Status => print_status(),
        Task::Install(options) => install(
            &Cluster::existing(&options.cluster.name)?,
            &weir(options.weir)?,
            progress,
        ),
        Task::Kubectl(options) => {
            let cluster = Cluster::existing(&options.cluster.name)?;
            become_program(cluster.kubectl()?.args(options.arguments))
        }
        Task::Exec(options) => exec(&options),
        Task::Upstream(options) => upstream(options, progress),
        Task::Reboot(options) => Cluster::existing(&options.cluster.name)?.reboot(&options.node, progress),
        Task::MakeSeed { archives } => seed::make(&archives),
        Task::NodeEnter { spec } => node::enter(&spec),
        Task::NodeInit { spec } => node::init(&spec),
    }
}

fn api_server(state: &Path) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handling signals")?;
    let server = ApiServer::start_in(&std::path::absolute(state)?)?;
    println!("{}", server.kubeconfig().display());
    let _ = signals.forever().next();
    drop(server);
    Ok(())
}

fn start(options: args::Up, progress: Progress) -> Result<()> {
    let cluster = up(
        &Options {
            name: options.cluster.name,
            nodes: options.nodes,
            family: options.ip_family.into(),
        },
        progress,
    )?;
    if !options.without_weir {
        install(&cluster, &weir(options.weir)?, progress)?;
    }
    progress.say("up");
    println!("{}", status(&cluster)?);
    Ok(())
}

fn weir(options: args::Weir) -> Result<Weir> {
    Ok(Weir {
        images: std::path::absolute(options.images)?,
        manifests: std::path::absolute(options.manifests)?,
    })
}

fn print_status() -> Result<()> {
    let mut none = true;
    for name in names()? {
        if let Some(cluster) = Cluster::find(&name)? {
            println!("{}", status(&cluster)?);
            none = false;
        }
    }
    if none {
        println!("no cluster runs");
    }
    Ok(())
}

fn exec(options: &args::Exec) -> Result<()> {
    let cluster = Cluster::existing(&options.cluster.name)?;
    let (program, arguments) = options.command.split_first().context("a program to run")?;
    let mut command = if options.node == "control-plane" {
        cluster.in_control_plane(program)
    } else {
        cluster.node(&options.node)?.command(program)?
    };
    become_program(command.args(arguments))
}

fn upstream(options: args::Upstream, progress: Progress) -> Result<()> {
    let table = upstream_tests::run(
        &Cluster::existing(&options.cluster.name)?,
        &upstream_tests::Options {
            group: options.group.into(),
            focus: options.focus,
            processes: options.procs,
        },
        progress,
    )?;
    println!("{table}");
    if table.has_failures() {
        bail!("upstream's tests: {}", table.totals());
    }
    Ok(())
}

/// Returns only with an error.
fn become_program(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("starting {}", command.get_program().display()))
}
