//! The local cluster: sets up the machine, makes Weir's images, and hands over to `weir-e2e`, which is not optimised,
//! since the machine waits for Kubernetes and not for it.

use std::process::Command;

use anyhow::Result;

use crate::args::{Cluster, ClusterTask, Images, Kubectl, Options, PassedOn};
use crate::checkout::Checkout;
use crate::{images, privilege, process, setup};

pub(crate) fn run(checkout: &Checkout, options: &Cluster) -> Result<()> {
    match &options.task {
        ClusterTask::Up(options) => up(checkout, options),
        ClusterTask::Install(options) => {
            make_images(checkout)?;
            e2e(checkout, "install", &options.arguments)
        }
        ClusterTask::Down(options) => e2e(checkout, "down", &options.arguments),
        ClusterTask::Status => e2e(checkout, "status", &[]),
        ClusterTask::Build(options) => {
            setup::cluster::run()?;
            e2e(checkout, "build", &options.arguments)
        }
    }
}

/// Ends the cluster of that name.
pub(crate) fn down(checkout: &Checkout, name: &str) -> Result<()> {
    e2e(checkout, "down", &[format!("--name={name}")])
}

/// Runs kubectl as administrator of the local cluster.
pub(crate) fn kubectl(checkout: &Checkout, options: &Kubectl) -> Result<()> {
    let mut arguments = vec![format!("--name={}", options.name), "--".to_owned()];
    arguments.extend(options.arguments.iter().cloned());
    e2e(checkout, "kubectl", &arguments)
}

/// Runs a group of upstream's specs against a cluster that runs.
pub(crate) fn upstream(checkout: &Checkout, options: &Options) -> Result<()> {
    setup::cluster::run()?;
    e2e(checkout, "upstream", &options.arguments)
}

/// Runs the tests that only a cluster can show.
pub(crate) fn test(checkout: &Checkout, options: &PassedOn) -> Result<()> {
    setup::run()?;
    setup::cluster::run()?;
    make_images(checkout)?;
    let mut cargo = checkout.cargo("test");
    // One after the other: the machine has room for one cluster and its load.
    cargo
        .args(["--locked", "-p", "weir-e2e", "--test", "*", "--"])
        .args(["--include-ignored", "--test-threads=1", "--nocapture"])
        .args(&options.arguments);
    privilege::run_built_programs_as_root(&mut cargo)?;
    process::run(&mut cargo)
}

fn up(checkout: &Checkout, options: &Options) -> Result<()> {
    setup::cluster::run()?;
    if !options
        .arguments
        .iter()
        .any(|argument| argument == "--without-weir")
    {
        setup::run()?;
        make_images(checkout)?;
    }
    e2e(checkout, "up", &options.arguments)
}

fn make_images(checkout: &Checkout) -> Result<()> {
    println!("== build: Weir's images (some minutes the first time)");
    images::run(
        checkout,
        &Images {
            out: None,
            tag: "dev".to_owned(),
            target: None,
        },
    )
}

fn e2e(checkout: &Checkout, task: &str, arguments: &[String]) -> Result<()> {
    let mut cargo: Command = checkout.cargo("run");
    cargo
        .args(["--quiet", "--locked", "-p", "weir-e2e", "--", task])
        .args(arguments);
    privilege::run_built_programs_as_root(&mut cargo)?;
    process::run(&mut cargo)
}
