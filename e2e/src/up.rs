//! Starts a cluster.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::addons;
use crate::build;
use crate::cluster::Cluster;
use crate::control_plane::Program;
use crate::down::down;
use crate::images;
use crate::kubernetes;
use crate::network;
use crate::node;
use crate::places;
use crate::plan::{Options, Plan};
use crate::process;
use crate::progress::Progress;
use crate::recipes::Group;
use crate::seed;

/// How long nodes may take to register.
const PATIENCE: Duration = Duration::from_secs(180);

/// inotify instances that one user may have on the machine: every kubelet, container runtime and many a pod has
/// several, and 128, the usual limit, is too few for six nodes.
const INOTIFY_INSTANCES: u32 = 1024;
const INOTIFY_LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Builds what is missing and starts a cluster, with nodes that nothing has made ready. One that runs already, as
/// wanted, is left alone; one of which a part has ended is started anew.
///
/// # Errors
/// A cluster of that name and another shape runs; or a part does not come up, and then what did is ended again. Logs
/// stay.
pub fn up(options: &Options, progress: Progress) -> Result<Cluster> {
    let plan = Plan::new(options.clone())?;
    build::ensure(&[Group::Cluster], progress)?;
    seed::ensure(&images::ensure(progress)?, progress)?;
    if let Some(cluster) = Cluster::find(&options.name)? {
        let whole = cluster.missing().is_empty();
        if whole && cluster.plan() == &plan {
            progress.say(format_args!("the cluster {} runs already", options.name));
            return Ok(cluster);
        }
        if whole {
            bail!(
                "a cluster {} of another shape runs: end it first with `cargo xtask cluster down`",
                options.name
            );
        }
    }
    down(&options.name, progress)?;
    start(plan, progress).inspect_err(|_| {
        progress.say("failed: ending what was started");
        if let Err(error) = down(&options.name, progress) {
            progress.say(format_args!("{error:#}"));
        }
    })
}

fn start(plan: Plan, progress: Progress) -> Result<Cluster> {
    let cluster = Cluster::record(plan)?;
    let control_plane = cluster.control_plane();
    allow_inotify()?;
    control_plane.certify()?;
    network::create(cluster.plan())?;
    progress.say("starting the control plane");
    control_plane.start(Program::Etcd)?;
    control_plane.start(Program::ApiServer)?;
    let nodes = cluster.nodes();
    // Nodes get ready to talk to the API server while it gets ready to answer.
    for node in &nodes {
        node::start(node)?;
    }
    progress.say(format_args!("started {} nodes", nodes.len()));
    control_plane.wait_until_ready()?;
    progress.say("the API server is ready");
    control_plane.start(Program::ControllerManager)?;
    control_plane.start(Program::Scheduler)?;
    wait_for_nodes(&cluster).with_context(|| format!("logs are in {}", cluster.logs().display()))?;
    progress.say("all nodes have registered");
    addons::apply(&cluster)?;
    Ok(cluster)
}

fn allow_inotify() -> Result<()> {
    let limit = Path::new(INOTIFY_LIMIT);
    let allowed: u32 = places::read(limit)?.trim().parse().context(INOTIFY_LIMIT)?;
    if allowed < INOTIFY_INSTANCES {
        places::write(limit, INOTIFY_INSTANCES.to_string())?;
    }
    Ok(())
}

/// Until each has its ranges of pod addresses; routes these to them from the control plane.
fn wait_for_nodes(cluster: &Cluster) -> Result<()> {
    let plan = cluster.plan();
    let ranges = plan.pod_cidrs().len();
    for node in &plan.nodes {
        let what = format!("{} to register", node.name);
        let cidrs = process::wait_for(&what, PATIENCE, || {
            let object = kubernetes::get(cluster, &["node", &node.name])?;
            Ok(object
                .map(|object| pod_cidrs(&object))
                .filter(|cidrs| cidrs.len() == ranges))
        })?;
        for cidr in cidrs {
            let via = same_family(&cidr, &node.addresses)
                .with_context(|| format!("{} has pods in {cidr} and no address of that family", node.name))?;
            network::route(&plan.control_plane_netns(), &cidr, via)?;
        }
    }
    Ok(())
}

fn pod_cidrs(node: &Value) -> Vec<String> {
    let cidrs = node["spec"]["podCIDRs"].as_array();
    cidrs
        .into_iter()
        .flatten()
        .filter_map(|cidr| cidr.as_str().map(str::to_owned))
        .collect()
}

fn same_family(cidr: &str, addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|address| address.is_ipv6() == cidr.contains(':'))
}
