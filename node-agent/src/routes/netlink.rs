//! Looking at this node's links and routes, and carrying out a plan.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's attributes are open-ended lists; the rest is not asked for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use tracing::debug;

use super::{
    NODE_ROUTE_PROTOCOL, NodeNetwork, NodeRoute, OnLink, Operation, Plan, Seen, Unrouted, UnroutedReason,
    plan,
};
use crate::workloads::LinkError;
use crate::workloads::{connection, netlink_error};

/// Makes the routes to the pods of all `others` be there, and no other ones of ours. What was done and what could not
/// be is returned. Changes nothing where all is right.
///
/// # Errors
///
/// If netlink refuses. What was done stays; doing it again goes on from there.
pub async fn reconcile(own: &NodeNetwork, others: &BTreeMap<String, NodeNetwork>) -> Result<Plan, LinkError> {
    let handle = connection()?;
    let mut plan = plan(own, others, &observe(&handle).await?);
    let mut refused = Vec::new();
    for operation in &plan.operations {
        debug!(%operation, "pod routes");
        if !execute(&handle, *operation).await? {
            refused.push(*operation);
        }
    }
    plan.operations.retain(|operation| !refused.contains(operation));
    for operation in refused {
        let Operation::Add(route) = operation else {
            continue;
        };
        plan.unrouted.extend(of_others(others, route.destination));
    }
    Ok(plan)
}

fn of_others(nodes: &BTreeMap<String, NodeNetwork>, destination: IpNet) -> Option<Unrouted> {
    let owns = |node: &NodeNetwork| node.pod_cidrs.iter().any(|cidr| cidr.trunc() == destination);
    let (name, _) = nodes.iter().find(|(_, node)| owns(node))?;
    Some(Unrouted {
        node: name.clone(),
        pod_cidr: destination,
        reason: UnroutedReason::RouteOfOthers,
    })
}

async fn observe(handle: &Handle) -> Result<Seen, LinkError> {
    let mut routes = routes(handle, AddressFamily::Inet).await?;
    routes.append(&mut self::routes(handle, AddressFamily::Inet6).await?);
    Ok(Seen {
        on_link: on_link(handle).await?,
        routes,
    })
}

async fn on_link(handle: &Handle) -> Result<BTreeSet<OnLink>, LinkError> {
    let mut stream = std::pin::pin!(handle.address().get().execute());
    let mut found = BTreeSet::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error("list the node's addresses".to_owned(), error))?
    {
        found.extend(link_of(&message));
    }
    Ok(found)
}

/// `None` for addresses that stand alone, and for those that mean something on their link only.
fn link_of(message: &AddressMessage) -> Option<OnLink> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let network = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let is_wide =
        message.header.scope == AddressScope::Universe && network.prefix_len() < network.max_prefix_len();
    is_wide.then_some(OnLink {
        network,
        ifindex: message.header.index,
    })
}

pub(super) async fn routes(handle: &Handle, family: AddressFamily) -> Result<BTreeSet<NodeRoute>, LinkError> {
    let mut query = RouteMessage::default();
    query.header.address_family = family;
    query.header.protocol = NODE_ROUTE_PROTOCOL.into();
    let mut stream = std::pin::pin!(handle.route().get(query).execute());
    let mut found = BTreeSet::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error("list the routes to other nodes".to_owned(), error))?
    {
        found.extend(route_of(&message));
    }
    Ok(found)
}

/// `None` for what is not one of ours, so that a kernel that does not filter does no harm.
fn route_of(message: &RouteMessage) -> Option<NodeRoute> {
    let header = &message.header;
    if header.protocol != NODE_ROUTE_PROTOCOL.into() || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut destination = unspecified(header.address_family);
    let (mut gateway, mut ifindex) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            _ => {}
        }
    }
    Some(NodeRoute {
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        // One that is not complete is none of those wanted, and goes.
        gateway: gateway.unwrap_or_else(|| unspecified(header.address_family)),
        ifindex: ifindex.unwrap_or_default(),
    })
}

fn unspecified(family: AddressFamily) -> IpAddr {
    if family == AddressFamily::Inet {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// False where a route of somebody else is in the way.
async fn execute(handle: &Handle, operation: Operation) -> Result<bool, LinkError> {
    let result = match operation {
        Operation::Add(route) => handle.route().add(message(route)).execute().await,
        Operation::Replace(route) => handle.route().add(message(route)).replace().execute().await,
        Operation::Remove(route) => handle.route().del(message(route)).execute().await,
    };
    let Err(error) = result else { return Ok(true) };
    let code = error_code(&error);
    match operation {
        Operation::Add(_) if code == Some(libc::EEXIST) => Ok(false),
        // Gone already: with its interface, say.
        Operation::Remove(_) if code == Some(libc::ESRCH) => Ok(true),
        Operation::Add(_) | Operation::Replace(_) | Operation::Remove(_) => {
            Err(netlink_error(operation.to_string(), error))
        }
    }
}

pub(super) fn error_code(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error {
        io::Error::raw_os_error(&message.to_io())
    } else {
        None
    }
}

fn message(route: NodeRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = NODE_ROUTE_PROTOCOL.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    message.header.address_family = match route.destination.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = route.destination.prefix_len();
    if route.destination.prefix_len() > 0 {
        let destination = RouteAttribute::Destination(route.destination.addr().into());
        message.attributes.push(destination);
    }
    if !route.gateway.is_unspecified() {
        message
            .attributes
            .push(RouteAttribute::Gateway(route.gateway.into()));
    }
    if route.ifindex != 0 {
        message.attributes.push(RouteAttribute::Oif(route.ifindex));
    }
    message
}
