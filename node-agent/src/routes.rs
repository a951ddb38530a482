//! The pod network between nodes: the routes to the pods of other nodes, natively or through a tunnel ([`vxlan`]).
//!
//! Where another node is on a link of this one, its pod CIDRs are routed by its address on that link. Where it is not,
//! there is nothing that this node could say to help: the network in between must know the pod CIDRs.
//!
//! [`plan`] thinks, [`reconcile`] looks and acts. What is ours is known by [`NODE_ROUTE_PROTOCOL`], so that an agent
//! with no memory removes what nobody wants any more, and touches nothing else.

mod netlink;
mod tunnel;
pub mod vxlan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use netlink::reconcile;
pub use tunnel::{Reconciled, reconcile_vxlan, remove_vxlan};

/// The `proto` of these routes (`ip route show proto 88`); outside the numbers that `rtnetlink(7)` and iproute2's
/// `rt_protos` assign, and another one than that of the routes to this node's own pods.
pub const NODE_ROUTE_PROTOCOL: u8 = 88;

/// A node, as far as others must know it to reach its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    pub addresses: BTreeSet<IpAddr>,
    pub pod_cidrs: BTreeSet<IpNet>,
}

/// A network that an interface of this node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnLink {
    /// The interface's own address with the length of the network's prefix.
    pub network: IpNet,
    pub ifindex: u32,
}

/// A unicast route in the main table with [`NODE_ROUTE_PROTOCOL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    pub destination: IpNet,
    pub gateway: IpAddr,
    pub ifindex: u32,
}

/// What the kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub on_link: BTreeSet<OnLink>,
    pub routes: BTreeSet<NodeRoute>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Add(NodeRoute),
    /// There is one of ours to that destination, by another way. Some packets take the one and some the other way, but
    /// none finds no way.
    Replace(NodeRoute),
    Remove(NodeRoute),
}

/// Pods of another node that no route of ours leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unrouted {
    pub node: String,
    pub pod_cidr: IpNet,
    pub reason: UnroutedReason,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnroutedReason {
    /// None of the node's addresses of the CIDR's family is on a link of this node. No error where the network between
    /// the nodes knows the way.
    NotOnLink,
    /// A pod CIDR of this node overlaps.
    OverlapsOwn,
    /// A pod CIDR of this other node, which comes first by name, overlaps.
    Overlaps(String),
    /// Somebody else has put a route to exactly that destination, which stays.
    RouteOfOthers,
}

/// What to do, and what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub operations: Vec<Operation>,
    pub unrouted: BTreeSet<Unrouted>,
}

/// The steps from what is to routes to the pods of all `others`; none where all is right. A node of its own in
/// `others` would be routed to itself: it does not belong there.
#[must_use]
pub fn plan(own: &NodeNetwork, others: &BTreeMap<String, NodeNetwork>, seen: &Seen) -> Plan {
    let mut wanted = Wanted::default();
    for (name, node) in others {
        for cidr in &node.pod_cidrs {
            wanted.route(own, name, node, cidr.trunc(), &seen.on_link);
        }
    }
    let routes: BTreeSet<NodeRoute> = wanted.routes.values().map(|(_, route)| *route).collect();
    let present: BTreeMap<IpNet, NodeRoute> = seen
        .routes
        .iter()
        .map(|route| (route.destination, *route))
        .collect();
    let mut operations: Vec<Operation> = routes
        .difference(&seen.routes)
        .map(|route| {
            if present.contains_key(&route.destination) {
                Operation::Replace(*route)
            } else {
                Operation::Add(*route)
            }
        })
        .collect();
    // A replacement takes the place of one route, so a former one is in the way only where there were several.
    let replaced: BTreeSet<NodeRoute> = operations
        .iter()
        .filter_map(|step| match step {
            Operation::Replace(route) => present.get(&route.destination).copied(),
            Operation::Add(_) | Operation::Remove(_) => None,
        })
        .collect();
    let unwanted = seen
        .routes
        .difference(&routes)
        .filter(|route| !replaced.contains(route));
    operations.extend(unwanted.map(|route| Operation::Remove(*route)));
    Plan {
        operations,
        unrouted: wanted.unrouted,
    }
}

#[derive(Default)]
struct Wanted {
    /// By destination, with the node's name.
    routes: BTreeMap<IpNet, (String, NodeRoute)>,
    /// Every pod CIDR so far, routed or not.
    taken: Vec<(IpNet, String)>,
    unrouted: BTreeSet<Unrouted>,
}

impl Wanted {
    fn route(
        &mut self,
        own: &NodeNetwork,
        name: &str,
        node: &NodeNetwork,
        destination: IpNet,
        on_link: &BTreeSet<OnLink>,
    ) {
        let route = self
            .conflict(own, name, destination)
            .map_or_else(|| route(node, destination, on_link), Err);
        match route {
            Ok(route) => {
                self.routes.insert(destination, (name.to_owned(), route));
            }
            Err(reason) => {
                self.unrouted.insert(Unrouted {
                    node: name.to_owned(),
                    pod_cidr: destination,
                    reason,
                });
            }
        }
        self.taken.push((destination, name.to_owned()));
    }

    fn conflict(&self, own: &NodeNetwork, name: &str, cidr: IpNet) -> Option<UnroutedReason> {
        if own.pod_cidrs.iter().any(|other| overlap(other, &cidr)) {
            return Some(UnroutedReason::OverlapsOwn);
        }
        let (_, other) = self
            .taken
            .iter()
            .find(|(other, node)| node != name && overlap(other, &cidr))?;
        Some(UnroutedReason::Overlaps(other.clone()))
    }
}

/// By the address on the narrowest link; of equals the first.
fn route(
    node: &NodeNetwork,
    destination: IpNet,
    on_link: &BTreeSet<OnLink>,
) -> Result<NodeRoute, UnroutedReason> {
    let of_family = |ip: &&IpAddr| ip.is_ipv4() == destination.addr().is_ipv4();
    let ways = node.addresses.iter().filter(of_family).flat_map(|gateway| {
        let links = on_link.iter().filter(|link| reaches(link, *gateway));
        links.map(|link| (u8::MAX - link.network.prefix_len(), link.ifindex, *gateway))
    });
    let (_, ifindex, gateway) = ways.min().ok_or(UnroutedReason::NotOnLink)?;
    Ok(NodeRoute {
        destination,
        gateway,
        ifindex,
    })
}

fn reaches(link: &OnLink, gateway: IpAddr) -> bool {
    link.network.contains(&gateway) && link.network.addr() != gateway
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, route) = match self {
            Self::Add(route) => ("add", route),
            Self::Replace(route) => ("replace", route),
            Self::Remove(route) => ("remove", route),
        };
        let NodeRoute {
            destination,
            gateway,
            ifindex,
        } = route;
        write!(
            f,
            "{what} the route to {destination} via {gateway} on interface {ifindex}"
        )
    }
}

impl fmt::Display for Unrouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            pod_cidr,
            reason,
        } = self;
        write!(f, "no route to {pod_cidr}, pods of node {node}: ")?;
        match reason {
            UnroutedReason::NotOnLink => f.write_str("no address of the node is on a link of this one"),
            UnroutedReason::OverlapsOwn => f.write_str("a pod CIDR of this node overlaps"),
            UnroutedReason::Overlaps(other) => write!(f, "a pod CIDR of node {other} overlaps"),
            UnroutedReason::RouteOfOthers => f.write_str("somebody else has a route there, which stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn node(addresses: &[&str], pod_cidrs: &[&str]) -> NodeNetwork {
        NodeNetwork {
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            pod_cidrs: pod_cidrs.iter().map(|text| net(text)).collect(),
        }
    }

    fn nodes(nodes: &[(&str, NodeNetwork)]) -> BTreeMap<String, NodeNetwork> {
        nodes
            .iter()
            .map(|(name, node)| ((*name).to_owned(), node.clone()))
            .collect()
    }

    fn on_link(networks: &[(&str, u32)]) -> BTreeSet<OnLink> {
        let link = |(network, ifindex): &(&str, u32)| OnLink {
            network: net(network),
            ifindex: *ifindex,
        };
        networks.iter().map(link).collect()
    }

    fn to(destination: &str, gateway: &str, ifindex: u32) -> NodeRoute {
        NodeRoute {
            destination: net(destination),
            gateway: ip(gateway),
            ifindex,
        }
    }

    fn own() -> NodeNetwork {
        node(&["192.0.2.1", "2001:db8::1"], &["10.0.1.0/24", "fd00:1::/64"])
    }

    fn unrouted(node: &str, cidr: &str, reason: UnroutedReason) -> Unrouted {
        Unrouted {
            node: node.to_owned(),
            pod_cidr: net(cidr),
            reason,
        }
    }

    #[test]
    fn both_families_by_the_narrowest_link() {
        let others = nodes(&[
            (
                "b",
                node(&["192.0.2.2", "2001:db8::2"], &["10.0.2.0/24", "fd00:2::/64"]),
            ),
            ("c", node(&["198.51.100.3"], &["10.0.3.0/24", "fd00:3::/64"])),
        ]);
        let seen = Seen {
            on_link: on_link(&[("192.0.2.1/24", 2), ("192.0.2.129/20", 3), ("2001:db8::1/64", 2)]),
            routes: BTreeSet::new(),
        };
        let first = plan(&own(), &others, &seen);
        let added = [
            to("10.0.2.0/24", "192.0.2.2", 2),
            to("fd00:2::/64", "2001:db8::2", 2),
        ];
        assert_eq!(
            first,
            Plan {
                operations: added.map(Operation::Add).into(),
                unrouted: [
                    unrouted("c", "10.0.3.0/24", UnroutedReason::NotOnLink),
                    unrouted("c", "fd00:3::/64", UnroutedReason::NotOnLink),
                ]
                .into(),
            }
        );
        let again = plan(
            &own(),
            &others,
            &Seen {
                routes: added.into(),
                ..seen
            },
        );
        assert_eq!(
            again,
            Plan {
                operations: vec![],
                unrouted: first.unrouted
            }
        );
    }

    #[test]
    fn a_node_that_moves_is_followed_and_one_that_goes_is_forgotten() {
        let others = nodes(&[("b", node(&["192.0.2.7"], &["10.0.2.0/24"]))]);
        let (old, gone) = (
            to("10.0.2.0/24", "192.0.2.2", 2),
            to("10.0.9.0/24", "192.0.2.9", 2),
        );
        let doubled = to("10.0.2.0/24", "192.0.2.3", 4);
        let seen = Seen {
            on_link: on_link(&[("192.0.2.1/24", 2)]),
            routes: [old, doubled, gone].into(),
        };
        let expected = vec![
            Operation::Replace(to("10.0.2.0/24", "192.0.2.7", 2)),
            Operation::Remove(old),
            Operation::Remove(gone),
        ];
        assert_eq!(plan(&own(), &others, &seen).operations, expected);
    }

    #[test]
    fn what_overlaps_is_not_routed() {
        let others = nodes(&[
            ("b", node(&["192.0.2.2"], &["10.0.2.0/23"])),
            ("c", node(&["192.0.2.3"], &["10.0.3.0/24", "10.0.1.128/25"])),
            // Itself, with this node's own address: no way there.
            ("d", node(&["192.0.2.1"], &["10.0.4.0/24"])),
        ]);
        let seen = Seen {
            on_link: on_link(&[("192.0.2.1/24", 2)]),
            routes: BTreeSet::new(),
        };
        assert_eq!(
            plan(&own(), &others, &seen),
            Plan {
                operations: vec![Operation::Add(to("10.0.2.0/23", "192.0.2.2", 2))],
                unrouted: [
                    unrouted("c", "10.0.1.128/25", UnroutedReason::OverlapsOwn),
                    unrouted("c", "10.0.3.0/24", UnroutedReason::Overlaps("b".to_owned())),
                    unrouted("d", "10.0.4.0/24", UnroutedReason::NotOnLink),
                ]
                .into(),
            }
        );
    }
}
