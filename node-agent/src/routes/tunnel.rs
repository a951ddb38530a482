//! Making the tunnel's interface, and filling it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's attributes are open-ended lists; the rest is not asked for"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use tracing::debug;

use super::NODE_ROUTE_PROTOCOL;
use super::netlink::{error_code, routes};
use super::vxlan::{Entry, INTERFACE, Tunnel, Wanted};
use crate::workloads::{
    LinkError, Mac, Refusal, add_address, addresses, connection, link_by_name, mac, mtu, neighbours,
    netlink_error,
};

/// The tunnel as [`reconcile_vxlan`] leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Of the interface. The programs of an uplink belong on it.
    pub ifindex: u32,
    /// What was done to its entries.
    pub added: BTreeSet<Entry>,
    pub removed: BTreeSet<Entry>,
}

/// Makes the interface and its entries be as wanted. Changes nothing where all is right.
///
/// # Errors
///
/// If netlink refuses, or an interface of the name is there that is no tunnel. What was done stays; doing it again goes
/// on from there.
pub async fn reconcile_vxlan(wanted: &Wanted) -> Result<Reconciled, LinkError> {
    let handle = connection()?;
    let ifindex = interface(&handle, &wanted.tunnel).await?;
    let present = entries(&handle, ifindex).await?;
    let added: BTreeSet<Entry> = wanted.entries.difference(&present).copied().collect();
    for entry in &added {
        debug!(?entry, "tunnel: add");
        add(&handle, ifindex, *entry).await?;
    }
    let removed: BTreeSet<Entry> = present.difference(&wanted.entries).copied().collect();
    for entry in removed.iter().rev() {
        debug!(?entry, "tunnel: remove");
        remove(&handle, ifindex, *entry).await?;
    }
    Ok(Reconciled {
        ifindex,
        added,
        removed,
    })
}

/// Removes the interface and all that is on it; whether there was one.
///
/// # Errors
///
/// If netlink refuses, or the interface of the name is no tunnel.
pub async fn remove_vxlan() -> Result<bool, LinkError> {
    let handle = connection()?;
    let Some(link) = link_by_name(&handle, INTERFACE).await? else {
        return Ok(false);
    };
    seen(&link)?;
    delete(&handle, &link).await?;
    Ok(true)
}

async fn interface(handle: &Handle, wanted: &Tunnel) -> Result<u32, LinkError> {
    if let Some(link) = link_by_name(handle, INTERFACE).await? {
        let seen = seen(&link)?;
        let index = link.header.index;
        if (Tunnel {
            mtu: wanted.mtu,
            ..seen.clone()
        }) == *wanted
        {
            if seen.mtu != wanted.mtu || !link.header.flags.contains(LinkFlags::Up) {
                let change = LinkUnspec::new_with_index(index).mtu(wanted.mtu).up().build();
                let changed = handle.link().set(change).execute().await;
                changed.map_err(|error| netlink_error(format!("set up {INTERFACE}"), error))?;
            }
            return Ok(index);
        }
        // None of the rest can be changed while it lives.
        delete(handle, &link).await?;
    }
    create(handle, wanted).await?;
    let link = link_by_name(handle, INTERFACE).await?;
    link.map(|link| link.header.index)
        .ok_or_else(|| LinkError::Vanished {
            name: INTERFACE.into(),
        })
}

async fn create(handle: &Handle, wanted: &Tunnel) -> Result<(), LinkError> {
    let link = LinkMessageBuilder::<LinkVxlan>::new(INTERFACE)
        .id(wanted.vni)
        .port(wanted.port)
        .learning(false);
    let link = match wanted.local {
        IpAddr::V4(v4) => link.local(v4),
        IpAddr::V6(v6) => link.local6(v6),
    };
    let link = link.address(wanted.mac.0.to_vec()).mtu(wanted.mtu).up().build();
    let created = handle.link().add(link).execute().await;
    created.map_err(|error| netlink_error(format!("create interface {INTERFACE}"), error))
}

async fn delete(handle: &Handle, link: &LinkMessage) -> Result<(), LinkError> {
    let deleted = handle.link().del(link.header.index).execute().await;
    deleted.map_err(|error| netlink_error(format!("remove interface {INTERFACE}"), error))
}

/// The tunnel that the interface is; an error where it is none.
fn seen(link: &LinkMessage) -> Result<Tunnel, LinkError> {
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    });
    let data = info.into_iter().flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    });
    let data = data.ok_or_else(|| Refusal::HostNameTaken {
        name: INTERFACE.into(),
    })?;
    let mut tunnel = Tunnel {
        vni: 0,
        port: 0,
        local: IpAddr::from([0, 0, 0, 0]),
        mac: mac(link),
        mtu: mtu(link),
    };
    for attribute in data {
        match attribute {
            InfoVxlan::Id(vni) => tunnel.vni = *vni,
            InfoVxlan::Port(port) => tunnel.port = *port,
            InfoVxlan::Local(v4) => tunnel.local = (*v4).into(),
            InfoVxlan::Local6(v6) => tunnel.local = (*v6).into(),
            _ => {}
        }
    }
    Ok(tunnel)
}

async fn entries(handle: &Handle, index: u32) -> Result<BTreeSet<Entry>, LinkError> {
    let mut found = forwards(handle, index).await?;
    for (gateway, mac) in neighbours(handle, index).await? {
        found.insert(Entry::Neighbour { gateway, mac });
    }
    for network in addresses(handle, index).await? {
        found.insert(Entry::Address {
            address: network.addr(),
        });
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let routes = routes(handle, family).await?;
        let through = routes.into_iter().filter(|route| route.ifindex == index);
        found.extend(through.map(|route| Entry::Route {
            pods: route.destination,
        }));
    }
    Ok(found)
}

/// The table that says to which node frames go.
async fn forwards(handle: &Handle, index: u32) -> Result<BTreeSet<Entry>, LinkError> {
    let mut request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Bridge);
    request.message_mut().header.ifindex = index;
    let mut stream = std::pin::pin!(request.execute());
    let mut found = BTreeSet::new();
    while let Some(message) = stream
        .try_next()
        .await
        .map_err(|error| netlink_error(format!("list where {INTERFACE} leads"), error))?
    {
        if message.header.ifindex == index {
            found.extend(forward(&message));
        }
    }
    Ok(found)
}

fn forward(message: &NeighbourMessage) -> Option<Entry> {
    let (mut mac, mut node) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => node = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => node = Some(IpAddr::V6(*v6)),
            // Of the family that is asked for, an address may come as bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => node = address(bytes),
            _ => {}
        }
    }
    Some(Entry::Forward {
        mac: mac?,
        node: node?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

async fn add(handle: &Handle, index: u32, entry: Entry) -> Result<(), LinkError> {
    let result = match entry {
        Entry::Forward { mac, node } => {
            let request = handle.neighbours().add_bridge(index, &mac.0).destination(node);
            request.flags(NeighbourFlags::Own).replace().execute().await
        }
        Entry::Neighbour { gateway, mac } => {
            let request = handle.neighbours().add(index, gateway).link_layer_address(&mac.0);
            request.replace().execute().await
        }
        Entry::Route { pods } => handle.route().add(route(pods, index)).replace().execute().await,
        Entry::Address { address } => add_address(handle, index, IpNet::from(address)).await,
    };
    result.map_err(|error| netlink_error(format!("{INTERFACE}: add {entry:?}"), error))
}

async fn remove(handle: &Handle, index: u32, entry: Entry) -> Result<(), LinkError> {
    let result = match entry {
        Entry::Forward { mac, node } => handle.neighbours().del(bridge(mac, node, index)).execute().await,
        Entry::Neighbour { gateway, mac } => {
            let mut request = handle.neighbours().add(index, gateway).link_layer_address(&mac.0);
            let message = request.message_mut().clone();
            handle.neighbours().del(message).execute().await
        }
        Entry::Route { pods } => handle.route().del(route(pods, index)).execute().await,
        Entry::Address { address } => {
            let message = crate::workloads::address_message(IpNet::from(address), index);
            handle.address().del(message).execute().await
        }
    };
    match result {
        // Gone already: a replacement took its place.
        Err(error) if matches!(error_code(&error), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
        result => result.map_err(|error| netlink_error(format!("{INTERFACE}: remove {entry:?}"), error)),
    }
}

fn bridge(mac: Mac, node: IpAddr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    let node = match node {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        NeighbourAttribute::Destination(node),
    ];
    message
}

/// The gateway is on the link because we say so.
fn route(pods: IpNet, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = NODE_ROUTE_PROTOCOL.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    message.header.flags = RouteFlags::Onlink;
    message.header.address_family = match pods {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = pods.prefix_len();
    message.attributes = vec![
        RouteAttribute::Destination(pods.network().into()),
        RouteAttribute::Gateway(pods.network().into()),
        RouteAttribute::Oif(index),
    ];
    message
}
