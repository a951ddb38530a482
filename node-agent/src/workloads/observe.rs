//! Reading what the kernel holds of a pod's link.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's attributes are open-ended lists; the rest is not asked for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::netlink_error;
use super::netns::Netns;
use super::plan::{self, End, HostLink, PeerLink, PodEnd, ROUTE_PROTOCOL, Route, Seen};
use super::sysctl::{self, Sysctl};
use super::{LinkError, Mac, PodLink};

/// What the kernel holds of `wanted`. `host` and `pod` speak to the two namespaces, with strict checking on.
pub(super) async fn observe(
    wanted: &PodLink,
    netns: &Netns,
    host: &Handle,
    pod: &Handle,
) -> Result<Seen, LinkError> {
    let host_link = link_by_name(host, &wanted.host_ifname).await?;
    let pod_link = link_by_name(pod, &wanted.pod_ifname).await?;
    let pod_ns_id = nsid(host, netns).await?;
    let peer = match &pod_link {
        Some(link) => pod_peer(host, link, pod_ns_id).await?,
        None => None,
    };
    let v6 = plan::has_v6(wanted);
    let host = match host_link {
        Some(message) => {
            let values = sysctl::read(&wanted.host_ifname, sysctl::of_host_end(v6).into_keys())?;
            let index = message.header.index;
            let peers_with_pod = peer.as_ref().is_some_and(|peer| peer.index == index);
            Some(HostLink {
                index,
                veth: is_veth(&message),
                peers_with_pod,
                end: end(host, &message, values).await?,
            })
        }
        None => None,
    };
    let pod_end = match pod_link {
        Some(message) => {
            let name = wanted.pod_ifname.clone();
            let values = netns
                .run(move || sysctl::read(&name, sysctl::of_pod_end(v6).into_keys()))
                .await?;
            Some(PodEnd {
                index: message.header.index,
                end: end(pod, &message, values).await?,
                peer,
            })
        }
        None => None,
    };
    let loopback = link_by_name(pod, "lo").await?;
    Ok(Seen {
        host,
        pod: pod_end,
        loopback_up: loopback.is_some_and(|lo| lo.header.flags.contains(LinkFlags::Up)),
    })
}

/// The link of that name, if there is one.
pub(crate) async fn link_by_name(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, LinkError> {
    let found = handle.link().get().match_name(name).execute().try_next().await;
    absent_is_none(found, || format!("look for interface {name}"))
}

fn absent_is_none(
    found: Result<Option<LinkMessage>, rtnetlink::Error>,
    doing: impl FnOnce() -> String,
) -> Result<Option<LinkMessage>, LinkError> {
    match found {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(netlink_error(doing(), error)),
    }
}

/// The number under which the agent's namespace knows the pod's, if they share a link.
async fn nsid(host: &Handle, netns: &Netns) -> Result<Option<i32>, LinkError> {
    let doing = || "look up the number of the pod's namespace".to_string();
    let mut message = NsidMessage::default();
    message
        .attributes
        .push(NsidAttribute::Fd(netns.file().as_raw_fd().cast_unsigned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let mut replies = host
        .clone()
        .request(request)
        .map_err(|error| netlink_error(doing(), error))?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(reply)) => {
                return Ok(reply.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                }));
            }
            NetlinkPayload::Error(error) => {
                return Err(netlink_error(doing(), rtnetlink::Error::NetlinkError(error)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The other end of a pod's link, if it is in the agent's namespace. Indexes are counted in each namespace
/// anew, so both ends must name each other, and the host's end the pod's namespace.
async fn pod_peer(
    host: &Handle,
    pod: &LinkMessage,
    pod_ns_id: Option<i32>,
) -> Result<Option<PeerLink>, LinkError> {
    let (Some(index), Some(pod_ns_id)) = (peer_index(pod), pod_ns_id) else {
        return Ok(None);
    };
    let found = host.link().get().match_index(index).execute().try_next().await;
    let found = absent_is_none(found, || format!("look for interface {index}"))?;
    Ok(found
        .filter(|link| peer_index(link) == Some(pod.header.index) && peer_ns_id(link) == Some(pod_ns_id))
        .map(|link| PeerLink {
            index,
            mac: mac(&link),
            alias: alias(&link),
        }))
}

async fn end(
    handle: &Handle,
    link: &LinkMessage,
    sysctls: BTreeMap<Sysctl, String>,
) -> Result<End, LinkError> {
    let index = link.header.index;
    let mut routes = routes(handle, index, AddressFamily::Inet).await?;
    routes.append(&mut self::routes(handle, index, AddressFamily::Inet6).await?);
    Ok(End {
        mac: mac(link),
        mtu: mtu(link),
        up: link.header.flags.contains(LinkFlags::Up),
        alias: alias(link),
        addresses: addresses(handle, index).await?,
        routes,
        neighbours: neighbours(handle, index).await?,
        sysctls,
    })
}

pub(crate) async fn addresses(handle: &Handle, index: u32) -> Result<BTreeSet<IpNet>, LinkError> {
    let doing = || format!("list the addresses of interface {index}");
    let mut request = handle.address().get();
    request.message_mut().header.index = index;
    let mut stream = std::pin::pin!(request.set_link_index_filter(index).execute());
    let mut found = BTreeSet::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error(doing(), error))?
    {
        // IFA_LOCAL is the interface's own address; IPv6 gives it only where a peer's differs.
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                _ => {}
            }
        }
        if let Some(ip) = local.or(address)
            && message.header.scope == AddressScope::Universe
            && let Ok(net) = IpNet::new(ip, message.header.prefix_len)
        {
            found.insert(net);
        }
    }
    Ok(found)
}

async fn routes(handle: &Handle, index: u32, family: AddressFamily) -> Result<BTreeSet<Route>, LinkError> {
    let doing = || format!("list the routes of interface {index}");
    let mut query = RouteMessage::default();
    query.header.address_family = family;
    query.header.protocol = ROUTE_PROTOCOL.into();
    query.attributes.push(RouteAttribute::Oif(index));
    let mut stream = std::pin::pin!(handle.route().get(query).execute());
    let mut found = BTreeSet::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error(doing(), error))?
    {
        found.extend(route(&message, index));
    }
    Ok(found)
}

/// `None` for what is not one of ours, so that a kernel that does not filter does no harm.
fn route(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    let ours = header.protocol == ROUTE_PROTOCOL.into() && header.table == RouteHeader::RT_TABLE_MAIN;
    if !ours || !message.attributes.contains(&RouteAttribute::Oif(index)) {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut destination = unspecified;
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            _ => {}
        }
    }
    Some(Route {
        gateway,
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(crate) async fn neighbours(handle: &Handle, index: u32) -> Result<BTreeMap<IpAddr, Mac>, LinkError> {
    let doing = || format!("list the neighbours of interface {index}");
    let mut request = handle.neighbours().get();
    request
        .message_mut()
        .attributes
        .push(NeighbourAttribute::IfIndex(index));
    let mut stream = std::pin::pin!(request.execute());
    let mut found = BTreeMap::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error(doing(), error))?
    {
        if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
            continue;
        }
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6))
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac)
                }
                _ => {}
            }
        }
        if let (Some(address), Some(mac)) = (address, mac) {
            found.insert(address, mac);
        }
    }
    Ok(found)
}

pub(super) fn is_veth(link: &LinkMessage) -> bool {
    let kind = |info: &[LinkInfo]| info.contains(&LinkInfo::Kind(InfoKind::Veth));
    link.attributes
        .iter()
        .any(|a| matches!(a, LinkAttribute::LinkInfo(info) if kind(info)))
}

pub(crate) fn mac(link: &LinkMessage) -> Mac {
    let bytes = |a: &LinkAttribute| {
        if let LinkAttribute::Address(bytes) = a {
            bytes.as_slice().try_into().ok().map(Mac)
        } else {
            None
        }
    };
    attribute(link, bytes).unwrap_or(Mac([0; 6]))
}

pub(crate) fn mtu(link: &LinkMessage) -> u32 {
    let mtu = attribute(link, |a| {
        if let LinkAttribute::Mtu(mtu) = a {
            Some(*mtu)
        } else {
            None
        }
    });
    mtu.unwrap_or(0)
}

pub(super) fn alias(link: &LinkMessage) -> String {
    attribute(link, |a| {
        if let LinkAttribute::IfAlias(alias) = a {
            Some(alias.clone())
        } else {
            None
        }
    })
    .unwrap_or_default()
}

pub(super) fn name(link: &LinkMessage) -> Option<String> {
    attribute(link, |a| {
        if let LinkAttribute::IfName(name) = a {
            Some(name.clone())
        } else {
            None
        }
    })
}

fn peer_index(link: &LinkMessage) -> Option<u32> {
    attribute(link, |a| {
        if let LinkAttribute::Link(index) = a {
            Some(*index)
        } else {
            None
        }
    })
}

fn peer_ns_id(link: &LinkMessage) -> Option<i32> {
    attribute(link, |a| {
        if let LinkAttribute::LinkNetNsId(id) = a {
            Some(*id)
        } else {
            None
        }
    })
}

fn attribute<T>(link: &LinkMessage, pick: impl Fn(&LinkAttribute) -> Option<T>) -> Option<T> {
    link.attributes.iter().find_map(pick)
}
