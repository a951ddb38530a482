//! Pods connected for real, in namespaces; the kernel's routing carries the traffic.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_agent::workloads::{
    self, HOST_MAC, Inspection, LinkError, Mac, PodInterface, PodLink, Refusal, connect, disconnect, inspect,
    open, prepare, prepare_node,
};
use weir_testbed::topology::node_with_uplink;
use weir_testbed::traffic::{Icmp, Outcome, Serve, Tcp, Udp};
use weir_testbed::{Place, Testbed};

const PORT: u16 = 8080;

struct Node {
    testbed: Testbed,
    place: Place,
}

impl Node {
    fn new(test: &str) -> Result<Node> {
        let testbed = Testbed::new(test)?;
        let place = node_with_uplink(&testbed, "node")?.node;
        place.run(prepare_node)??;
        Ok(Node { testbed, place })
    }

    /// Runs the agent's code as an agent on the node would.
    fn agent<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        self.place.run(move || runtime.block_on(work()))
    }

    /// A pod with addresses that end in `last`, not yet connected.
    fn pod(&self, name: &str, last: u8) -> Result<(Place, PodLink)> {
        let pod = self.testbed.pod(&self.place, name)?;
        let link = PodLink {
            netns: pod.netns_path(),
            host_ifname: format!("weir{last}"),
            pod_ifname: "eth0".into(),
            addresses: addresses(last).into(),
            mtu: 1500,
        };
        Ok((pod, link))
    }

    fn connected(&self, name: &str, last: u8) -> Result<(Place, PodLink, PodInterface)> {
        let (pod, link) = self.pod(name, last)?;
        let interface = self.agent(async || connect(&link).await)??;
        Ok((pod, link, interface))
    }
}

fn addresses(last: u8) -> [IpAddr; 2] {
    [
        [10, 244, 1, last].into(),
        [0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(last)].into(),
    ]
}

fn reaches(from: &Place, to: [IpAddr; 2]) -> Result<bool> {
    let mut answered = Vec::new();
    for to in to {
        answered.push(
            from.icmp(&Icmp::to(to).timeout(Duration::from_millis(200)))?
                .outcome
                == Outcome::Answered,
        );
    }
    ensure!(
        answered[0] == answered[1],
        "IPv4 {}, IPv6 {}",
        answered[0],
        answered[1]
    );
    Ok(answered[0])
}

#[test]
fn pods_reach_each_other_and_their_node_in_both_families() -> Result<()> {
    let node = Node::new("link-reach")?;
    let (a, a_link, a_interface) = node.connected("a", 1)?;
    let (b, _, _) = node.connected("b", 2)?;
    assert_eq!(a_interface.pod_mac, Mac([0x0a, 0x58, 10, 244, 1, 1]));
    assert_eq!(a_interface.host_mac, HOST_MAC);
    assert_eq!(node.place.mac("weir1")?, HOST_MAC.to_string());
    assert_eq!(a.mac("eth0")?, a_interface.pod_mac.to_string());

    let serve = |at: &Place, last| {
        let echo = addresses(last).map(|ip| SocketAddr::new(ip, PORT)).into();
        at.serve(&Serve {
            name: "server".into(),
            echo,
            ..Serve::default()
        })
    };
    let _servers = (serve(&a, 1)?, serve(&b, 2)?);
    for (from, to) in [(&a, 2), (&b, 1), (&node.place, 1), (&node.place, 2)] {
        ensure!(reaches(from, addresses(to))?, "{} to {to}", from.netns());
        for ip in addresses(to) {
            let to = SocketAddr::new(ip, PORT);
            assert_eq!(
                from.tcp(&Tcp {
                    bytes: 1 << 20,
                    ..Tcp::to(to)
                })?
                .outcome,
                Outcome::Answered,
                "TCP to {to}"
            );
            assert_eq!(
                from.udp(&Udp::to(to).bytes(9000))?.outcome,
                Outcome::Answered,
                "UDP to {to}"
            );
        }
    }
    // Nobody had to ask for anybody.
    let resolved = a.command("ip").args(["neigh", "show", "dev", "eth0"]).output()?;
    let resolved = String::from_utf8(resolved.stdout)?;
    ensure!(
        resolved.lines().count() == 2 && resolved.lines().all(|line| line.contains("PERMANENT")),
        "{resolved}"
    );
    ensure!(reaches(&a, addresses(1))?, "a pod reaches itself");
    let again = node.agent(async || (connect(&a_link).await, inspect(&a_link).await))?;
    assert_eq!(
        (again.0?, again.1?),
        (
            a_interface,
            Inspection {
                interface: Some(a_interface),
                missing: vec![]
            }
        )
    );
    node.testbed.remove()
}

#[test]
fn nothing_passes_between_prepare_and_open() -> Result<()> {
    let node = Node::new("link-closed")?;
    let (a, _, _) = node.connected("a", 1)?;
    let (b, link) = node.pod("b", 2)?;
    let prepared = node.agent(async || prepare(&link).await)??;
    ensure!(!reaches(&a, addresses(2))? && !reaches(&b, addresses(1))?);
    let opened = node.agent(async || open(&link).await)??;
    assert_eq!(prepared, opened);
    ensure!(reaches(&a, addresses(2))? && reaches(&b, addresses(1))?);
    // A pod that is open stays so.
    assert_eq!(node.agent(async || prepare(&link).await)??, opened);
    ensure!(reaches(&a, addresses(2))?);
    node.testbed.remove()
}

#[test]
fn what_is_broken_is_mended_in_place() -> Result<()> {
    let node = Node::new("link-mend")?;
    let (a, link, interface) = node.connected("a", 1)?;
    let (b, _, _) = node.connected("b", 2)?;
    let damages: &[(&Place, &[&str])] = &[
        (&a, &["address flush dev eth0"]),
        (
            &a,
            &[
                "address del 10.244.1.1/32 dev eth0",
                "address add 10.244.1.1/24 dev eth0",
            ],
        ),
        (
            &a,
            &[
                "address del fd00:10:244:1::1/128 dev eth0",
                "address add fd00:10:244:1::1/64 dev eth0",
            ],
        ),
        (
            &a,
            &[
                "address add 10.244.1.77/32 dev eth0",
                "address add fd00:10:244:1::77/128 dev eth0",
            ],
        ),
        (&a, &["route flush default", "-6 route flush default"]),
        (
            &a,
            &["route replace default dev lo", "-6 route replace default dev lo"],
        ),
        (&a, &["route flush proto 87", "-6 route flush proto 87"]),
        (&a, &["neigh flush dev eth0 nud permanent"]),
        (
            &a,
            &["neigh replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"],
        ),
        (&a, &["link set eth0 down"]),
        (&a, &["link set eth0 address 02:00:00:00:00:02"]),
        (&a, &["link set eth0 mtu 1300"]),
        (&a, &["link set lo down"]),
        (&node.place, &["link set weir1 down"]),
        (&node.place, &["link set weir1 mtu 9000"]),
        (&node.place, &["link set weir1 address 02:00:00:00:00:03"]),
        (&node.place, &["link set weir1 alias other"]),
        (&node.place, &["address add 10.9.9.9/32 dev weir1"]),
        (
            &node.place,
            &["route del 10.244.1.1", "-6 route del fd00:10:244:1::1"],
        ),
        (&node.place, &["route add 10.244.1.88 dev weir1 proto 87"]),
        (
            &node.place,
            &[
                "neigh del 10.244.1.1 dev weir1",
                "neigh del fd00:10:244:1::1 dev weir1",
            ],
        ),
        (
            &node.place,
            &["neigh add 10.244.1.88 lladdr 02:00:00:00:00:04 dev weir1 nud permanent"],
        ),
    ];
    for (place, commands) in damages {
        for command in *commands {
            place.ip(command)?;
        }
        let seen = node.agent(async || inspect(&link).await)??;
        ensure!(!seen.missing.is_empty(), "{commands:?} was not noticed");
        let mended = node.agent(async || connect(&link).await)??;
        assert_eq!(mended, interface, "{commands:?}");
        let seen = node.agent(async || inspect(&link).await)??;
        assert_eq!(
            seen,
            Inspection {
                interface: Some(interface),
                missing: vec![]
            },
            "{commands:?}"
        );
        ensure!(
            reaches(&a, addresses(2))? && reaches(&b, addresses(1))?,
            "{commands:?}"
        );
    }
    a.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")?;
    node.place.sysctl("net/ipv4/conf/weir1/forwarding", "0")?;
    node.agent(async || connect(&link).await)??;
    ensure!(reaches(&a, addresses(2))? && reaches(&b, addresses(1))?);
    node.testbed.remove()
}

#[test]
fn a_pod_gets_other_addresses() -> Result<()> {
    let node = Node::new("link-readdress")?;
    let (b, _, _) = node.connected("b", 2)?;
    let (_, link, before) = node.connected("a", 1)?;
    let link = PodLink {
        addresses: addresses(9).into(),
        ..link
    };
    let after = node.agent(async || connect(&link).await)??;
    assert_eq!(
        after,
        PodInterface {
            pod_mac: Mac([0x0a, 0x58, 10, 244, 1, 9]),
            ..before
        }
    );
    assert_eq!(node.agent(async || inspect(&link).await)??.missing, vec![]);
    ensure!(reaches(&b, addresses(9))? && !reaches(&b, addresses(1))?);
    // And to one family.
    let link = PodLink {
        addresses: vec![addresses(9)[1]],
        ..link
    };
    node.agent(async || connect(&link).await)??;
    assert_eq!(node.agent(async || inspect(&link).await)??.missing, vec![]);
    let reached = addresses(9).map(|ip| b.icmp(&Icmp::to(ip).timeout(Duration::from_millis(200))));
    let [v4, v6] = reached;
    ensure!(v4?.outcome != Outcome::Answered && v6?.outcome == Outcome::Answered);
    node.testbed.remove()
}

#[test]
fn a_pod_that_comes_anew_or_under_another_name_is_connected_anew() -> Result<()> {
    let node = Node::new("link-anew")?;
    let (b, _, _) = node.connected("b", 2)?;
    let (_, old, _) = node.connected("a", 1)?;
    // Another pod with the same interface name on the node, while the old one is still there.
    let (_, other) = node.pod("c", 3)?;
    let new = PodLink {
        netns: other.netns.clone(),
        ..old.clone()
    };
    node.agent(async || connect(&new).await)??;
    assert_eq!(node.agent(async || inspect(&new).await)??.missing, vec![]);
    ensure!(reaches(&b, addresses(1))?);
    // The same pod under another interface name.
    let renamed = PodLink {
        host_ifname: "weir7".into(),
        ..new.clone()
    };
    node.agent(async || connect(&renamed).await)??;
    assert_eq!(node.agent(async || inspect(&renamed).await)??.missing, vec![]);
    ensure!(reaches(&b, addresses(1))?);
    ensure!(node.agent(async || disconnect("weir7").await)??);
    ensure!(!node.agent(async || disconnect("weir7").await)??);
    ensure!(!reaches(&b, addresses(1))?);
    assert_eq!(node.agent(async || inspect(&renamed).await)??.interface, None);
    node.testbed.remove()
}

#[test]
fn what_is_not_ours_is_left_alone() -> Result<()> {
    let node = Node::new("link-foreign")?;
    let (pod, link) = node.pod("a", 1)?;
    node.place.ip("link add weir1 type veth peer name weir1p")?;
    let refused = |result: Result<_, LinkError>| match result {
        Err(LinkError::Refused(refusal)) => Ok(refusal),
        other => Err(anyhow::anyhow!("{other:?}")),
    };
    let taken = Refusal::HostNameTaken { name: "weir1".into() };
    assert_eq!(refused(node.agent(async || connect(&link).await)?)?, taken);
    assert_eq!(
        refused(node.agent(async || disconnect("weir1").await.map(|_| unreachable!()))?)?,
        taken
    );
    node.place.ip("link show weir1")?;
    node.place.ip("link del weir1")?;

    pod.ip("link add eth0 type veth peer name eth0p")?;
    let taken = Refusal::PodNameTaken { name: "eth0".into() };
    assert_eq!(refused(node.agent(async || connect(&link).await)?)?, taken);
    pod.ip("link show eth0")?;
    node.testbed.remove()
}

#[test]
fn bad_namespaces_are_errors() -> Result<()> {
    let node = Node::new("link-bad")?;
    let (_, link) = node.pod("a", 1)?;
    let own = PodLink {
        netns: node.place.netns_path(),
        ..link.clone()
    };
    let result = node.agent(async || connect(&own).await)?;
    ensure!(matches!(result, Err(LinkError::NodeNetns { .. })), "{result:?}");
    for path in ["/run/netns/weir-there-is-no-such-one", "/proc/self/status"] {
        let bad = PodLink {
            netns: path.into(),
            ..link.clone()
        };
        let result = node.agent(async || connect(&bad).await)?;
        ensure!(matches!(result, Err(LinkError::Netns { .. })), "{result:?}");
    }
    node.testbed.remove()
}

/// The agent may spawn it: a future that is not `Send` would not compile here.
#[test]
fn the_futures_can_be_spawned() {
    fn spawnable<F: Future + Send>(_: &F) {}
    let link = PodLink {
        netns: "/".into(),
        host_ifname: "a".into(),
        pod_ifname: "b".into(),
        addresses: vec![],
        mtu: 1500,
    };
    spawnable(&workloads::connect(&link));
    spawnable(&workloads::inspect(&link));
    spawnable(&workloads::disconnect("a"));
}
