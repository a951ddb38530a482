//! What runs of a cluster.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::control_plane::Program;

/// A line for each part, and one that says where the kubeconfig is.
///
/// # Errors
/// What is on record cannot be read.
pub fn status(cluster: &Cluster) -> Result<String> {
    let options = &cluster.plan().options;
    let mut lines = vec![format!(
        "cluster {}: {} nodes, {}",
        options.name,
        options.nodes,
        serde_json::to_value(options.family)?.as_str().unwrap_or_default()
    )];
    let control_plane = cluster.control_plane();
    for program in Program::ALL {
        lines.push(part(
            program.name(),
            control_plane.process(program).map(|process| process.pid()),
        ));
    }
    for node in cluster.nodes() {
        lines.push(part(&node.name, node.process().map(|process| process.pid())));
    }
    lines.push(format!("kubeconfig {}", cluster.kubeconfig().display()));
    lines.push(format!("logs       {}", cluster.logs().display()));
    Ok(lines.join("\n"))
}

fn part(name: &str, pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("  {name:<24} runs, process {pid}"),
        None => format!("  {name:<24} does not run"),
    }
}
