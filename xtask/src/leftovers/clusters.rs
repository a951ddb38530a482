//! Clusters of `cargo xtask cluster`: somebody's work, and no leftovers. They are known by their namespaces, whoever
//! started them.

use std::collections::BTreeSet;
use std::path::Path;

use super::Leftover;

/// The wire between a cluster's nodes; it is the first to come and the last to go.
const FABRIC: &str = "fabric";
const CONTROL_PLANE: &str = "cp";
const NODE: &str = "node";

/// Names of the clusters that have these network namespaces.
pub(crate) fn of(namespaces: impl Iterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
    namespaces
        .filter_map(|name| {
            let (cluster, part) = split(name.as_ref())?;
            (part == FABRIC).then(|| cluster.to_owned())
        })
        .collect()
}

/// Whether a network namespace is one of theirs.
pub(super) fn have_namespace(clusters: &BTreeSet<String>, name: &str) -> bool {
    split(name).is_some_and(|(cluster, _)| clusters.contains(cluster))
}

/// Whether one of them has this. Processes are told by their namespaces.
pub(super) fn have(clusters: &BTreeSet<String>, leftover: &Leftover) -> bool {
    match leftover {
        Leftover::Namespace(name) => have_namespace(clusters, name),
        Leftover::Cgroup(path) => clusters.iter().any(|cluster| is_below_group(path, cluster)),
        Leftover::Directory(_) | Leftover::Link(_) | Leftover::Mount(_) | Leftover::Process { .. } => false,
    }
}

fn is_below_group(path: &Path, cluster: &str) -> bool {
    let group = format!("weir-{cluster}");
    path.components().any(|part| part.as_os_str() == group.as_str())
}

/// Cluster and part of `weir-CLUSTER-PART`.
fn split(namespace: &str) -> Option<(&str, &str)> {
    let (cluster, part) = namespace.strip_prefix("weir-")?.rsplit_once('-')?;
    let is_node = part
        .strip_prefix(NODE)
        .is_some_and(|number| number.parse::<u32>().is_ok());
    (part == FABRIC || part == CONTROL_PLANE || is_node).then_some((cluster, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACES: &[&str] = &[
        "weir-local-fabric",
        "weir-local-cp",
        "weir-local-node1",
        "weir-a-b-fabric",
        "weir-demo-17-0-node",
        "weir-local-17-0-outside",
        "others",
    ];

    #[test]
    fn a_cluster_is_known_by_its_wire() {
        let expected: BTreeSet<String> = ["local", "a-b"].map(str::to_owned).into();
        assert_eq!(of(NAMESPACES.iter()), expected);
    }

    #[test]
    fn what_a_test_left_is_no_clusters() {
        let clusters = of(NAMESPACES.iter());
        let have = |leftover| have(&clusters, &leftover);
        assert!(have(Leftover::Namespace("weir-local-node1".to_owned())));
        assert!(have(Leftover::Cgroup("/sys/fs/cgroup/weir-local/node1".into())));
        assert!(!have(Leftover::Namespace("weir-local-17-0-outside".to_owned())));
        assert!(!have(Leftover::Namespace("weir-other-node1".to_owned())));
        assert!(!have(Leftover::Cgroup("/sys/fs/cgroup/weir-local-17-0".into())));
        assert!(!have(Leftover::Directory("/run/weir-local".into())));
    }
}
