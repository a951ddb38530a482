//! Carrying out a plan by netlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use rtnetlink::{AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tracing::debug;

use super::netns::Netns;
use super::observe::{alias, is_veth, link_by_name, mac, name, observe};
use super::plan::{self, EndName, HOST_MAC, Operation, ROUTE_PROTOCOL, Refusal, Route, Seen};
use super::{Inspection, LinkError, PodInterface, PodLink, sysctl};

/// Connects a pod, or mends its connection; changes nothing where all is right.
pub async fn connect(wanted: &PodLink) -> Result<PodInterface, LinkError> {
    Session::start(wanted).await?.apply(|_| true).await
}

/// Does all that [`connect`] does up to the point where traffic could pass: the node's end stays down if it
/// is. Programs that are attached between this and [`open`] see the pod's first packet.
pub async fn prepare(wanted: &PodLink) -> Result<PodInterface, LinkError> {
    Session::start(wanted).await?.apply(|step| !step.opens()).await
}

/// Does the rest of what [`prepare`] left.
pub async fn open(wanted: &PodLink) -> Result<PodInterface, LinkError> {
    connect(wanted).await
}

/// Looks, and changes nothing.
pub async fn inspect(wanted: &PodLink) -> Result<Inspection, LinkError> {
    let session = Session::start(wanted).await?;
    let seen = session.observe().await?;
    let missing = plan::plan(wanted, &seen)?;
    Ok(Inspection {
        interface: seen.interface(),
        missing,
    })
}

/// Names of the node's ends of all pairs that are ours, whoever made them.
pub async fn list() -> Result<BTreeSet<String>, LinkError> {
    let handle = connection()?;
    let mut links = handle.link().get().execute();
    let mut names = BTreeSet::new();
    while let Some(link) = links
        .try_next()
        .await
        .map_err(|error| netlink_error("list interfaces".to_owned(), error))?
    {
        if is_veth(&link) && plan::is_ours(mac(&link), &alias(&link)) {
            names.extend(name(&link));
        }
    }
    Ok(names)
}

/// Removes a pod's pair by the name of the node's end, with all routes and neighbours on it. Works when the
/// pod's namespace is gone. Returns whether there was one; refuses what is not ours.
pub async fn disconnect(host_ifname: &str) -> Result<bool, LinkError> {
    let handle = connection()?;
    let Some(link) = link_by_name(&handle, host_ifname).await? else {
        return Ok(false);
    };
    if !(is_veth(&link) && plan::is_ours(mac(&link), &alias(&link))) {
        return Err(Refusal::HostNameTaken {
            name: host_ifname.into(),
        }
        .into());
    }
    let deleted = handle.link().del(link.header.index).execute().await;
    deleted.map_err(|error| netlink_error(format!("remove interface {host_ifname}"), error))?;
    Ok(true)
}

/// The two namespaces of one link.
struct Session<'a> {
    wanted: &'a PodLink,
    netns: Netns,
    host: Handle,
    pod: Handle,
}

impl<'a> Session<'a> {
    async fn start(wanted: &'a PodLink) -> Result<Session<'a>, LinkError> {
        plan::validate(wanted)?;
        let netns = Netns::open(&wanted.netns)?;
        let pod = netns.run(connection).await?;
        Ok(Session {
            wanted,
            netns,
            host: connection()?,
            pod,
        })
    }

    async fn observe(&self) -> Result<Seen, LinkError> {
        observe(self.wanted, &self.netns, &self.host, &self.pod).await
    }

    async fn apply(&self, wish: impl Fn(&Operation) -> bool) -> Result<PodInterface, LinkError> {
        let mut seen = self.observe().await?;
        let mut steps = plan::plan(self.wanted, &seen)?;
        steps.retain(wish);
        for step in &steps {
            debug!(netns = %self.wanted.netns.display(), interface = %self.wanted.host_ifname, %step, "pod link");
            self.execute(step).await?;
        }
        if !steps.is_empty() {
            seen = self.observe().await?;
        }
        seen.interface().ok_or_else(|| LinkError::Vanished {
            name: self.wanted.host_ifname.clone(),
        })
    }

    async fn execute(&self, step: &Operation) -> Result<(), LinkError> {
        let result = match step {
            Operation::SetSysctl { end, sysctl, value } => {
                return self.set_sysctl(*end, *sysctl, value.clone()).await;
            }
            Operation::RemovePair { index } => self.host.link().del(*index).execute().await,
            Operation::CreatePair => self.create_pair().await,
            Operation::SetMac { end, mac } => {
                self.set_link(*end, |link| link.address(mac.0.to_vec())).await?
            }
            Operation::SetMtu { end, mtu } => self.set_link(*end, |link| link.mtu(*mtu)).await?,
            Operation::SetAlias { end, alias } => {
                let alias = LinkAttribute::IfAlias(alias.clone());
                self.set_link(*end, |link| link.append_extra_attribute(alias))
                    .await?
            }
            Operation::SetUp { end } => self.set_link(*end, LinkMessageBuilder::up).await?,
            Operation::LoopbackUp => {
                self.pod
                    .link()
                    .set(LinkUnspec::new_with_name("lo").up().build())
                    .execute()
                    .await
            }
            Operation::AddAddress { end, address } => {
                add_address(self.handle(*end), self.index(*end).await?, *address).await
            }
            Operation::RemoveAddress { end, address } => {
                let message = address_message(*address, self.index(*end).await?);
                self.handle(*end).address().del(message).execute().await
            }
            Operation::AddRoute { end, route } => {
                let message = route_message(*route, self.index(*end).await?);
                self.handle(*end).route().add(message).replace().execute().await
            }
            Operation::RemoveRoute { end, route } => {
                let message = route_message(*route, self.index(*end).await?);
                self.handle(*end).route().del(message).execute().await
            }
            Operation::SetNeighbour { end, address, mac } => {
                let request = self
                    .handle(*end)
                    .neighbours()
                    .add(self.index(*end).await?, *address);
                request.link_layer_address(&mac.0).replace().execute().await
            }
            Operation::RemoveNeighbour { end, address } => {
                let message = neighbour_message(*address, self.index(*end).await?);
                self.handle(*end).neighbours().del(message).execute().await
            }
        };
        result.map_err(|error| netlink_error(format!("{}: {step}", self.wanted.host_ifname), error))
    }

    fn handle(&self, end: EndName) -> &Handle {
        match end {
            EndName::Host => &self.host,
            EndName::Pod => &self.pod,
        }
    }

    fn name(&self, end: EndName) -> &str {
        match end {
            EndName::Host => &self.wanted.host_ifname,
            EndName::Pod => &self.wanted.pod_ifname,
        }
    }

    async fn index(&self, end: EndName) -> Result<u32, LinkError> {
        let link = link_by_name(self.handle(end), self.name(end)).await?;
        link.map(|link| link.header.index)
            .ok_or_else(|| LinkError::Vanished {
                name: self.name(end).into(),
            })
    }

    async fn set_link(
        &self,
        end: EndName,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<Result<(), rtnetlink::Error>, LinkError> {
        let message = change(LinkUnspec::new_with_index(self.index(end).await?)).build();
        Ok(self.handle(end).link().set(message).execute().await)
    }

    async fn set_sysctl(&self, end: EndName, key: sysctl::Sysctl, value: String) -> Result<(), LinkError> {
        let name = self.name(end).to_string();
        match end {
            EndName::Host => sysctl::write(&name, key, &value),
            EndName::Pod => self.netns.run(move || sysctl::write(&name, key, &value)).await,
        }
    }

    /// Address and MTU go into the same request: a link that exists is recognisable as ours at once.
    async fn create_pair(&self) -> Result<(), rtnetlink::Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(self.wanted.pod_ifname.clone())
            .address(plan::pod_mac(self.wanted).0.to_vec())
            .mtu(self.wanted.mtu)
            .setns_by_fd(self.netns.file().as_raw_fd())
            .build();
        let pair = LinkVeth::new(&self.wanted.host_ifname, &self.wanted.pod_ifname)
            .address(HOST_MAC.0.to_vec())
            .mtu(self.wanted.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.host.link().add(pair.build()).execute().await
    }
}

/// A netlink socket in the calling thread's namespace. Strict checking makes the kernel do the filtering of
/// dumps (since 4.20), so that a node with many routes is not read whole for each pod.
pub(crate) fn connection() -> Result<Handle, LinkError> {
    let opened = rtnetlink::new_connection_with_strict_check();
    let (connection, handle, _) = opened.map_err(|source| LinkError::Netlink {
        doing: "open a netlink socket".into(),
        source,
    })?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(crate) fn netlink_error(doing: String, error: rtnetlink::Error) -> LinkError {
    let source = if let rtnetlink::Error::NetlinkError(message) = &error {
        message.to_io()
    } else {
        std::io::Error::other(error)
    };
    LinkError::Netlink { doing, source }
}

/// Adds an address, or makes it right.
pub(crate) async fn add_address(handle: &Handle, index: u32, address: IpNet) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    *request.message_mut() = no_dad(request.message_mut().clone());
    request.replace().execute().await
}

/// An IPv6 address is usable at once: nobody else is on the wire to have it too.
fn no_dad(mut message: AddressMessage) -> AddressMessage {
    if message.header.family == AddressFamily::Inet6 {
        message.header.flags |= AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn route_message(route: Route, index: u32) -> RouteMessage {
    let (address, prefix_length) = (route.destination.addr(), route.destination.prefix_len());
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = ROUTE_PROTOCOL.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    message.header.address_family = family(address);
    message.header.destination_prefix_length = prefix_length;
    if prefix_length > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(address.into()));
    }
    message.attributes.extend(
        route
            .gateway
            .map(|gateway| RouteAttribute::Gateway(gateway.into())),
    );
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

pub(crate) fn address_message(address: IpNet, index: u32) -> AddressMessage {
    match address.addr() {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(ip, address.prefix_len())
            .build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(ip, address.prefix_len())
            .build(),
    }
}

fn neighbour_message(address: IpAddr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.family = family(address);
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
