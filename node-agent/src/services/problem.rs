//! What is wrong with a Service or an EndpointSlice, and the reading of the parts that can be.

use std::fmt;
use std::net::IpAddr;

use weir_policy::model::Protocol;
use weir_policy::snapshot::ObjectName;

/// Something in a Service or EndpointSlice that is left out of the result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceProblem {
    pub kind: ServiceKind,
    pub object: ObjectName,
    /// Like `spec.ports[0].port`.
    pub field: String,
    pub code: ServiceProblemCode,
    /// A sentence for the object's author: what is wrong, and what holds instead.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceKind {
    Service,
    EndpointSlice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceProblemCode {
    /// No address was given, and nobody is here to give one.
    MissingAddress,
    InvalidAddress,
    /// An address of the other family than the slice says.
    WrongFamily,
    InvalidPort,
    InvalidProtocol,
    /// Another Service has the same address, port and protocol.
    AddressTaken,
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for ServiceProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Reads the parts that both kinds have, and says what is wrong with them.
pub(super) struct Reporter<'a> {
    pub kind: ServiceKind,
    pub object: &'a ObjectName,
    pub problems: &'a mut Vec<ServiceProblem>,
}

impl Reporter<'_> {
    pub(super) fn report(&mut self, field: &str, code: ServiceProblemCode, message: String) {
        let (kind, object) = (self.kind, self.object.clone());
        self.problems.push(ServiceProblem {
            kind,
            object,
            field: field.to_owned(),
            code,
            message,
        });
    }

    pub(super) fn port(&mut self, field: &str, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|&port| port != 0);
        if port.is_none() {
            let message = format!("{number} is no port: they go from 1 to 65535; the port is left out");
            self.report(field, ServiceProblemCode::InvalidPort, message);
        }
        port
    }

    pub(super) fn protocol(&mut self, field: &str, name: Option<&str>) -> Option<u8> {
        let name = name.unwrap_or("TCP");
        let protocol = Protocol::parse(name).map(Protocol::number);
        if protocol.is_none() {
            let message = format!("{name:?} is none of TCP, UDP and SCTP; the port is left out");
            self.report(field, ServiceProblemCode::InvalidProtocol, message);
        }
        protocol
    }

    /// An address that can be somebody's. Loopback and the like are never admitted as endpoints or cluster addresses:
    /// they would lead into the node itself.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let message = match text.parse::<IpAddr>() {
            Ok(address) => match special(address) {
                None => return Some(address),
                Some(what) => format!("{address} is {what}; the address is left out"),
            },
            Err(_) => format!("{text:?} is no IP address; the address is left out"),
        };
        self.report(field, ServiceProblemCode::InvalidAddress, message);
        None
    }
}

/// What makes an address unfit to be that of a pod or a Service, as the API server's `ValidateNonSpecialIP` has it.
pub(crate) fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("no address that can be routed to")
    } else {
        None
    }
}
