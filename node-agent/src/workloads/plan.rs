//! What lies between the link that is and the link that should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::sysctl::{self, Sysctl};
use super::{Mac, PodInterface, PodLink};

/// The pod's IPv4 gateway. No interface holds it: the pod's neighbour entry is all there is to it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The pod's IPv6 gateway; as [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The address of every node end: locally administered, and `WEIR` in ASCII. One for all, since each is on
/// a wire of its own; and by it an agent with no memory knows a link as ours.
pub const HOST_MAC: Mac = Mac([0x02, b'W', b'E', b'I', b'R', 0x01]);

/// The `proto` of our routes (`ip route show proto 87`); outside the numbers that `rtnetlink(7)` and
/// iproute2's `rt_protos` assign.
pub const ROUTE_PROTOCOL: u8 = 87;

/// The `ifalias` of every node end: the second mark of what is ours, should somebody change the address.
pub(super) const ALIAS: &str = "weir";

/// Which end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndName {
    /// In the agent's namespace.
    Host,
    /// In the pod's namespace.
    Pod,
}

impl fmt::Display for EndName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EndName::Host => "host end",
            EndName::Pod => "pod end",
        })
    }
}

/// A unicast route out of the link, in the main table, with [`ROUTE_PROTOCOL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Before `destination` in the order of the fields: a gateway can be used only once the route to it
    /// is there, and `None` sorts first.
    pub gateway: Option<IpAddr>,
    pub destination: IpNet,
}

/// The state of one end, as far as it is ours to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The `ifalias`; empty where there is none.
    pub alias: String,
    /// Of global scope.
    pub addresses: BTreeSet<IpNet>,
    /// Only those with [`ROUTE_PROTOCOL`].
    pub routes: BTreeSet<Route>,
    /// Only permanent ones.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// Only those that are to be set.
    pub sysctls: BTreeMap<Sysctl, String>,
}

/// A link in the agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    pub index: u32,
    pub veth: bool,
    /// Whether its other end is the pod's interface of the wanted name.
    pub peers_with_pod: bool,
    pub end: End,
}

/// A link in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEnd {
    pub index: u32,
    pub end: End,
    /// The link in the agent's namespace that is its other end, where there is one.
    pub peer: Option<PeerLink>,
}

/// What must be known of a link to tell whether it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLink {
    pub index: u32,
    pub mac: Mac,
    pub alias: String,
}

/// What the kernel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The link in the agent's namespace that has the wanted name.
    pub host: Option<HostLink>,
    /// The link in the pod's namespace that has the wanted name.
    pub pod: Option<PodEnd>,
    /// Whether the pod's `lo` is up.
    pub loopback_up: bool,
}

impl Seen {
    /// The pair, if both ends are there and belong together.
    pub fn interface(&self) -> Option<PodInterface> {
        let (host, pod) = (self.host.as_ref()?, self.pod.as_ref()?);
        host.peers_with_pod.then_some(PodInterface {
            host_ifindex: host.index,
            host_mac: host.end.mac,
            pod_ifindex: pod.index,
            pod_mac: pod.end.mac,
        })
    }
}

/// One step. Ends are named, not numbered: the pair may be created by an earlier step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Deletes a pair of ours by its index in the agent's namespace; the other end goes with it.
    RemovePair {
        index: u32,
    },
    /// Creates the pair as the [`PodLink`] says, both ends down.
    CreatePair,
    SetSysctl {
        end: EndName,
        sysctl: Sysctl,
        value: String,
    },
    SetMac {
        end: EndName,
        mac: Mac,
    },
    SetMtu {
        end: EndName,
        mtu: u32,
    },
    SetAlias {
        end: EndName,
        alias: String,
    },
    SetUp {
        end: EndName,
    },
    LoopbackUp,
    RemoveAddress {
        end: EndName,
        address: IpNet,
    },
    AddAddress {
        end: EndName,
        address: IpNet,
    },
    RemoveRoute {
        end: EndName,
        route: Route,
    },
    AddRoute {
        end: EndName,
        route: Route,
    },
    RemoveNeighbour {
        end: EndName,
        address: IpAddr,
    },
    SetNeighbour {
        end: EndName,
        address: IpAddr,
        mac: Mac,
    },
}

impl Operation {
    /// Whether traffic can pass once this is done. All such steps come last, so that programs can be
    /// attached before them.
    pub fn opens(&self) -> bool {
        match self {
            Operation::SetUp { end }
            | Operation::AddRoute { end, .. }
            | Operation::SetNeighbour { end, .. } => *end == EndName::Host,
            Operation::RemovePair { .. }
            | Operation::CreatePair
            | Operation::SetSysctl { .. }
            | Operation::SetMac { .. }
            | Operation::SetMtu { .. }
            | Operation::SetAlias { .. }
            | Operation::LoopbackUp
            | Operation::RemoveAddress { .. }
            | Operation::AddAddress { .. }
            | Operation::RemoveRoute { .. }
            | Operation::RemoveNeighbour { .. } => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::RemovePair { index } => write!(f, "remove the veth pair of link {index}"),
            Operation::CreatePair => f.write_str("create the veth pair"),
            Operation::SetSysctl { end, sysctl, value } => write!(f, "{end}: set {sysctl} to {value}"),
            Operation::SetMac { end, mac } => write!(f, "{end}: set the address to {mac}"),
            Operation::SetMtu { end, mtu } => write!(f, "{end}: set the MTU to {mtu}"),
            Operation::SetAlias { end, alias } => write!(f, "{end}: set the alias to {alias:?}"),
            Operation::SetUp { end } => write!(f, "{end}: set up"),
            Operation::LoopbackUp => f.write_str("set the pod's lo up"),
            Operation::RemoveAddress { end, address } => write!(f, "{end}: remove address {address}"),
            Operation::AddAddress { end, address } => write!(f, "{end}: add address {address}"),
            Operation::RemoveRoute { end, route } => write!(f, "{end}: remove route {}", route.destination),
            Operation::AddRoute { end, route } => write!(f, "{end}: add route {}", route.destination),
            Operation::RemoveNeighbour { end, address } => write!(f, "{end}: remove neighbour {address}"),
            Operation::SetNeighbour { end, address, mac } => {
                write!(f, "{end}: set neighbour {address} to {mac}")
            }
        }
    }
}

/// Why no plan was made. Nothing that is not ours is ever touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("host_ifname: an interface {name} is there already and is not ours")]
    HostNameTaken { name: String },
    #[error("pod_ifname: the pod has an interface {name} already and it is not ours")]
    PodNameTaken { name: String },
}

/// The steps from what is to what `wanted` asks for, in an order in which each finds what it needs, the
/// opening ones ([`Operation::opens`]) last. Empty if nothing is to be done.
pub(super) fn plan(wanted: &PodLink, seen: &Seen) -> Result<Vec<Operation>, Refusal> {
    validate(wanted)?;
    let mut steps = Vec::new();
    let kept = pair(wanted, seen, &mut steps)?;
    if !seen.loopback_up {
        steps.push(Operation::LoopbackUp);
    }
    let (pod, host) = kept.unwrap_or_else(|| (fresh(wanted_pod(wanted)), fresh(wanted_host(wanted))));
    difference(EndName::Pod, &pod, &wanted_pod(wanted), &mut steps);
    difference(EndName::Host, &host, &wanted_host(wanted), &mut steps);
    steps.sort_by_key(Operation::opens);
    Ok(steps)
}

/// Errors name the field of [`PodLink`] that is wrong.
pub(super) fn validate(link: &PodLink) -> Result<(), Refusal> {
    interface_name("host_ifname", &link.host_ifname)?;
    interface_name("pod_ifname", &link.pod_ifname)?;
    let invalid = |field, reason| Err(Refusal::Invalid { field, reason });
    if link.addresses.is_empty() {
        return invalid("addresses", "a pod needs at least one".into());
    }
    for address in &link.addresses {
        let v4_unusable = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.is_link_local());
        let v6_unusable = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || v4_unusable
            || v6_unusable
        {
            return invalid("addresses", format!("{address} cannot be a pod's address"));
        }
    }
    let least = if link.addresses.iter().any(IpAddr::is_ipv6) {
        1280
    } else {
        68
    };
    if !(least..=65535).contains(&link.mtu) {
        return invalid("mtu", format!("{} is not within {least} to 65535", link.mtu));
    }
    Ok(())
}

/// The kernel's rule (`dev_valid_name`), less `%`, which would make it a pattern.
fn interface_name(field: &'static str, name: &str) -> Result<(), Refusal> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(Refusal::Invalid {
            field,
            reason: format!("{name:?} is not an interface name"),
        });
    }
    Ok(())
}

/// Decides whether the pair can stay. Returns its ends if so; else the steps that make a new one are added.
fn pair(wanted: &PodLink, seen: &Seen, steps: &mut Vec<Operation>) -> Result<Option<(End, End)>, Refusal> {
    if let Some(host) = &seen.host
        && !(host.veth && is_ours(host.end.mac, &host.end.alias))
    {
        return Err(Refusal::HostNameTaken {
            name: wanted.host_ifname.clone(),
        });
    }
    let peer = seen
        .pod
        .as_ref()
        .map(|pod| pod.peer.as_ref().filter(|p| is_ours(p.mac, &p.alias)));
    if peer == Some(None) {
        return Err(Refusal::PodNameTaken {
            name: wanted.pod_ifname.clone(),
        });
    }
    if let (Some(host), Some(pod)) = (&seen.host, &seen.pod)
        && host.peers_with_pod
    {
        return Ok(Some((pod.end.clone(), host.end.clone())));
    }
    let host = seen.host.as_ref().map(|host| host.index);
    let stale: BTreeSet<u32> = host.into_iter().chain(peer.flatten().map(|p| p.index)).collect();
    steps.extend(stale.into_iter().map(|index| Operation::RemovePair { index }));
    steps.push(Operation::CreatePair);
    Ok(None)
}

pub(super) fn is_ours(mac: Mac, alias: &str) -> bool {
    mac == HOST_MAC || alias == ALIAS
}

/// The pod's address is made of its own: stable over restarts, and readable in a capture.
pub(super) fn pod_mac(link: &PodLink) -> Mac {
    let v4 = link.addresses.iter().filter(|a| a.is_ipv4()).min();
    let [a, b, c, d] = match v4.or(link.addresses.iter().min()) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
        None => [0; 4],
    };
    Mac([0x0a, 0x58, a, b, c, d])
}

fn wanted_pod(link: &PodLink) -> End {
    let gateways: BTreeSet<IpAddr> = link.addresses.iter().map(gateway_of).collect();
    let routes = gateways.iter().flat_map(|gateway| {
        [
            Route {
                gateway: None,
                destination: single(*gateway),
            },
            Route {
                gateway: Some(*gateway),
                destination: everything(gateway),
            },
        ]
    });
    End {
        mac: pod_mac(link),
        mtu: link.mtu,
        up: true,
        alias: String::new(),
        addresses: link.addresses.iter().copied().map(single).collect(),
        routes: routes.collect(),
        neighbours: gateways.iter().map(|gateway| (*gateway, HOST_MAC)).collect(),
        sysctls: sysctl::of_pod_end(has_v6(link)),
    }
}

fn wanted_host(link: &PodLink) -> End {
    let routes = link.addresses.iter().map(|a| Route {
        gateway: None,
        destination: single(*a),
    });
    End {
        mac: HOST_MAC,
        mtu: link.mtu,
        up: true,
        alias: ALIAS.into(),
        addresses: BTreeSet::new(),
        routes: routes.collect(),
        neighbours: link.addresses.iter().map(|a| (*a, pod_mac(link))).collect(),
        sysctls: sysctl::of_host_end(has_v6(link)),
    }
}

/// What [`Operation::CreatePair`] leaves: the wanted address and MTU, and nothing else.
fn fresh(wanted: End) -> End {
    End {
        up: false,
        alias: String::new(),
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        neighbours: BTreeMap::new(),
        sysctls: BTreeMap::new(),
        ..wanted
    }
}

pub(super) fn has_v6(link: &PodLink) -> bool {
    link.addresses.iter().any(IpAddr::is_ipv6)
}

fn gateway_of(address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

fn single(address: IpAddr) -> IpNet {
    address.into()
}

fn everything(like: &IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}

/// Settings before the link goes up, since some take effect only then; addresses, routes and neighbours
/// after it, since a link that is down takes none.
fn difference(end: EndName, is: &End, wanted: &End, steps: &mut Vec<Operation>) {
    for (sysctl, value) in &wanted.sysctls {
        if is.sysctls.get(sysctl) != Some(value) {
            steps.push(Operation::SetSysctl {
                end,
                sysctl: *sysctl,
                value: value.clone(),
            });
        }
    }
    if is.mac != wanted.mac {
        steps.push(Operation::SetMac { end, mac: wanted.mac });
    }
    if is.mtu != wanted.mtu {
        steps.push(Operation::SetMtu { end, mtu: wanted.mtu });
    }
    if is.alias != wanted.alias {
        steps.push(Operation::SetAlias {
            end,
            alias: wanted.alias.clone(),
        });
    }
    if !is.up {
        steps.push(Operation::SetUp { end });
    }
    addresses(end, is, wanted, steps);
    let is = &without_lost(is, wanted);
    let stale = is.routes.difference(&wanted.routes);
    steps.extend(stale.map(|route| Operation::RemoveRoute { end, route: *route }));
    let missing = wanted.routes.difference(&is.routes);
    steps.extend(missing.map(|route| Operation::AddRoute { end, route: *route }));
    let stale = is
        .neighbours
        .keys()
        .filter(|address| !wanted.neighbours.contains_key(address));
    steps.extend(stale.map(|address| Operation::RemoveNeighbour {
        end,
        address: *address,
    }));
    for (address, mac) in &wanted.neighbours {
        if is.neighbours.get(address) != Some(mac) {
            steps.push(Operation::SetNeighbour {
                end,
                address: *address,
                mac: *mac,
            });
        }
    }
}

/// IPv6 knows an address once, whatever its length, so the old one goes first. IPv4 knows it once a length,
/// and takes all routes along with a link's last address, so there the new one comes first.
fn addresses(end: EndName, is: &End, wanted: &End, steps: &mut Vec<Operation>) {
    let (stale_v4, stale_v6): (Vec<IpNet>, Vec<IpNet>) = is
        .addresses
        .difference(&wanted.addresses)
        .partition(|net| net.addr().is_ipv4());
    let missing = wanted.addresses.difference(&is.addresses);
    steps.extend(
        stale_v6
            .into_iter()
            .map(|address| Operation::RemoveAddress { end, address }),
    );
    steps.extend(missing.map(|address| Operation::AddAddress {
        end,
        address: *address,
    }));
    steps.extend(
        stale_v4
            .into_iter()
            .map(|address| Operation::RemoveAddress { end, address }),
    );
}

/// What is left of `is` after the steps up to the addresses. A link that changes its own address forgets its
/// neighbours, permanent ones too (`neigh_changeaddr`); one that loses its last IPv4 address forgets its
/// IPv4 routes and neighbours (`fib_disable_ip`).
fn without_lost(is: &End, wanted: &End) -> End {
    let mut left = is.clone();
    if is.mac != wanted.mac {
        left.neighbours.clear();
    }
    let has_v4 = |addresses: &BTreeSet<IpNet>| addresses.iter().any(|net| net.addr().is_ipv4());
    if has_v4(&is.addresses) && !has_v4(&wanted.addresses) {
        left.routes.retain(|route| route.destination.addr().is_ipv6());
        left.neighbours.retain(|address, _| address.is_ipv6());
    }
    left
}

#[cfg(test)]
mod tests;
