//! The network of a pod, for sockets of the test: what they send and get is what a process of the pod would.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use weir_e2e::cluster::Cluster;
use weir_e2e::node::Spec;

use super::pods::Pod;

#[derive(Debug, Clone)]
pub(crate) struct Netns(Arc<File>);

/// Where the container runtime of a node keeps its pods' network namespaces, as seen from outside of the node; `None`
/// when that does not run.
pub(crate) fn folder(node: &Spec) -> Option<PathBuf> {
    let process = node.process()?;
    let root = PathBuf::from(format!("/proc/{}/root", process.pid()));
    Some(root.join("run/netns"))
}

impl Netns {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self(Arc::new(file)))
    }

    /// Where Kubernetes' control plane is: outside of all nodes.
    pub(crate) fn of_control_plane(cluster: &Cluster) -> Self {
        let name = cluster.plan().control_plane_netns();
        Self::open(&Path::new("/run/netns").join(name)).expect("the control plane's network")
    }

    /// The one that has a pod's addresses.
    pub(crate) fn of_pod(cluster: &Cluster, pod: &Pod) -> Self {
        let node = cluster.node(&pod.node).expect("a node");
        let entries = fs::read_dir(folder(&node).expect("the node runs"));
        let entries = entries.expect("the node's pods").flatten();
        entries
            .filter_map(|entry| Self::open(&entry.path()).ok())
            .find(|netns| {
                let own = netns.addresses();
                pod.addresses.iter().all(|address| own.contains(address))
            })
            .unwrap_or_else(|| panic!("{} has no network with its addresses: {pod:?}", node.name))
    }

    /// Runs `work` on a thread that is in the namespace; sockets that it makes stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let inside = || setns(&*self.0, CloneFlags::CLONE_NEWNET).map(|()| work());
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result.map_err(io::Error::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into the namespace, for ever.
    pub(crate) fn enter(&self) {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).expect("entered");
    }

    /// All but those of the loopback interface and of a single link. Of what is no namespace yet, none.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.run(own_addresses).unwrap_or_default()
    }
}

/// As [`Netns::addresses`], of the calling thread's.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = getifaddrs().expect("addresses");
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            v4.or_else(v6)
        })
        .filter(|address| match address {
            IpAddr::V4(address) => !address.is_loopback(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        })
        .collect()
}

/// How many TCP segments were sent once more, or SYNs, in the namespace of the calling thread.
pub(crate) fn retransmissions() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().expect("names"), tcp.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs
        .find(|(name, _)| *name == "RetransSegs")
        .expect("RetransSegs");
    value.parse().expect("a number")
}
