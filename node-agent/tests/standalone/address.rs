//! Where something is reached, and from where traffic is sent.

use std::net::{IpAddr, SocketAddr};

use weir_testbed::Place;

/// An address of each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) ips: [IpAddr; 2],
}

impl Address {
    pub(crate) fn new(name: &str, ips: [IpAddr; 2]) -> Address {
        Address {
            name: name.into(),
            ips,
        }
    }

    pub(crate) fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.ips.map(|ip| SocketAddr::new(ip, port))
    }
}

impl AsRef<Address> for Address {
    fn as_ref(&self) -> &Address {
        self
    }
}

/// Somebody who can send and be reached.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) place: Place,
    pub(crate) address: Address,
}

impl AsRef<Address> for End {
    fn as_ref(&self) -> &Address {
        &self.address
    }
}

/// A pod's addresses, by their last part.
pub(crate) fn pod_ips(last: u8) -> [IpAddr; 2] {
    [
        [10, 244, 1, last].into(),
        [0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(last)].into(),
    ]
}

/// A Service's addresses, by their last part.
pub(crate) fn service_ips(last: u8) -> [IpAddr; 2] {
    [
        [10, 96, 0, last].into(),
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(last)].into(),
    ]
}

pub(crate) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}
