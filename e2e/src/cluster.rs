//! A cluster by its name: what is on record of it, and ways to reach into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use crate::control_plane::{ControlPlane, Program};
use crate::network::{self, Port};
use crate::node;
use crate::places;
use crate::plan::{ClusterName, Node, Options, Plan};
use crate::progress::Progress;

/// A cluster on record, running or not.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    state: PathBuf,
}

impl Cluster {
    /// The cluster of that name that runs, wholly or in part; `None` when there is none.
    ///
    /// # Errors
    /// What is on record cannot be read.
    pub fn find(name: &ClusterName) -> Result<Option<Self>> {
        let state = places::state(&name.to_string())?;
        let file = state.join("cluster.json");
        if !file.is_file() {
            return Ok(None);
        }
        let options: Options = serde_json::from_str(&places::read(&file)?)
            .with_context(|| format!("reading {}", file.display()))?;
        Ok(Some(Self {
            plan: Plan::new(options)?,
            state,
        }))
    }

    /// As [`Cluster::find`], where there must be one.
    ///
    /// # Errors
    /// There is none.
    pub fn existing(name: &ClusterName) -> Result<Self> {
        Self::find(name)?
            .ok_or_else(|| anyhow!("no cluster {name} runs: start it with `cargo xtask cluster up`"))
    }

    /// Puts a cluster that is about to come up on record.
    pub(crate) fn record(plan: Plan) -> Result<Self> {
        let state = places::state(&plan.options.name.to_string())?;
        for folder in ["logs", "nodes", "pids"] {
            places::create_dir(&state.join(folder), 0o755)?;
        }
        places::write(
            &state.join("cluster.json"),
            serde_json::to_string_pretty(&plan.options)?,
        )?;
        Ok(Self { plan, state })
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The kubeconfig of an administrator: of use in the control plane's network, as [`Cluster::in_control_plane`],
    /// and on nodes.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_plane().kubeconfig()
    }

    #[must_use]
    pub fn control_plane(&self) -> ControlPlane<'_> {
        ControlPlane::new(&self.plan, &self.state)
    }

    /// kubectl as administrator, to add arguments to.
    ///
    /// # Errors
    /// There is no cache.
    pub fn kubectl(&self) -> Result<Command> {
        self.control_plane().kubectl()
    }

    /// A program to be run in the control plane's network, outside of all nodes, to add arguments to.
    #[must_use]
    pub fn in_control_plane(&self, program: impl AsRef<Path>) -> Command {
        self.control_plane().command(program)
    }

    /// A node by its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn node(&self, name: &str) -> Result<node::Spec> {
        self.planned(name).map(|node| self.spec(node))
    }

    fn planned(&self, name: &str) -> Result<&Node> {
        let found = self.plan.nodes.iter().find(|node| node.name == name);
        found.ok_or_else(|| anyhow!("the cluster {} has no node {name}", self.plan.options.name))
    }

    fn spec(&self, node: &Node) -> node::Spec {
        node::Spec {
            name: node.name.clone(),
            zone: node.zone.to_owned(),
            addresses: node.addresses.clone(),
            netns: node.netns.clone(),
            cgroup: self.plan.prefix(),
            dns: self.plan.dns_service(),
            certificates: self.control_plane().certificates(),
            folder: self.state.join("nodes").join(&node.name),
            logs: self.logs(),
        }
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<node::Spec> {
        self.plan.nodes.iter().map(|node| self.spec(node)).collect()
    }

    /// Where all programs of the cluster log to.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Ends a node as if its power had failed, and starts it with a new network namespace, empty `/run` and BPF file
    /// system, and its files as they were.
    ///
    /// # Errors
    /// It does not end or not start.
    pub fn reboot(&self, name: &str, progress: Progress) -> Result<()> {
        let planned = self.planned(name)?;
        let (node, port) = (self.spec(planned), Port::of(planned));
        progress.say(format_args!("ending {name}"));
        node::stop(&node.folder)?;
        network::unplug(&self.plan, &port)?;
        network::plug(&self.plan, &port)?;
        progress.say(format_args!("starting {name}"));
        node::start(&node)
    }

    /// What of the cluster ought to run and does not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let control_plane = self.control_plane();
        let mut missing: Vec<String> = Program::ALL
            .into_iter()
            .filter(|program| control_plane.process(*program).is_none())
            .map(|program| program.name().to_owned())
            .collect();
        let nodes = self.nodes().into_iter();
        missing.extend(
            nodes
                .filter(|node| node.process().is_none())
                .map(|node| node.name),
        );
        missing
    }
}

/// Names of the clusters on record.
///
/// # Errors
/// The record cannot be read.
pub fn names() -> Result<Vec<ClusterName>> {
    let Ok(entries) = fs::read_dir(places::root()?.join("state")) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
