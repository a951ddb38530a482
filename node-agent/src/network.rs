//! How a node's pods speak to what is outside the node, and what follows from it for the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use weir_abi::address::{Address, CidrKey};
use weir_abi::config::{Masquerade, NON_MASQUERADE};

/// Everything about the pod network that an administrator may wish, merged for this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `None` where pods speak to everybody as themselves.
    pub masquerade: Option<Masquerading>,
}

/// As whom pods speak to what is outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerading {
    /// The node's address at its uplink; a family without one is not masqueraded.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub ports: PortRange,
    /// Destinations that pods speak to as themselves. Pods and nodes that the address book has are so in any case;
    /// the cluster's pod CIDRs belong here as well, for pods that it does not have yet.
    pub non_masquerade_cidrs: BTreeSet<IpNet>,
}

/// Ports of the node that its pods' connections get, both ends included. They are also the identifiers of ICMP echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The range is empty, or has port 0 in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{first}-{last} is no range of ports: it goes upwards, from 1 on")]
pub struct InvalidPortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// # Errors
    ///
    /// If the range is empty or has port 0 in it.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidPortRange> {
        if first == 0 || last < first {
            return Err(InvalidPortRange { first, last });
        }
        Ok(Self { first, last })
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// What Linux gives its own sockets none of, unless told otherwise (`ip_local_port_range` is 32768 to 60999).
impl Default for PortRange {
    fn default() -> Self {
        Self {
            first: 61_000,
            last: 65_535,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// As `61000-65535`.
impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |number: &str| {
            number
                .parse()
                .map_err(|error| format!("{number:?} is no port: {error}"))
        };
        let (first, last) = text
            .split_once('-')
            .ok_or_else(|| format!("{text:?} is no range of ports like 61000-65535"))?;
        Self::new(port(first)?, port(last)?).map_err(|error| error.to_string())
    }
}

/// Ranges that no router outside has: RFC 1918 and RFC 4193.
#[must_use]
pub fn default_non_masquerade_cidrs() -> BTreeSet<IpNet> {
    [
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
    ]
    .into_iter()
    .map(|(address, prefix_len)| IpNet::new_assert(address, prefix_len))
    .collect()
}

/// The one entry of the `masquerade` array; none where nothing is masqueraded.
pub(crate) fn masquerade(settings: &NetworkSettings) -> BTreeMap<u32, Masquerade> {
    let Some(wanted) = &settings.masquerade else {
        return BTreeMap::new();
    };
    if wanted.v4.is_none() && wanted.v6.is_none() {
        return BTreeMap::new();
    }
    let PortRange { first, last } = wanted.ports;
    let value = Masquerade {
        v4: wanted
            .v4
            .map(|ip| Address::from_ip(ip.into()))
            .unwrap_or_default(),
        v6: wanted
            .v6
            .map(|ip| Address::from_ip(ip.into()))
            .unwrap_or_default(),
        first_port: first,
        // At most 65,535, as the range begins at 1.
        ports: last - first + 1,
        padding: 0,
    };
    [(0, value)].into()
}

/// The entries of the `non_masquerade` trie.
pub(crate) fn non_masquerade(settings: &NetworkSettings) -> BTreeMap<CidrKey, u32> {
    let cidrs = settings
        .masquerade
        .iter()
        .flat_map(|wanted| &wanted.non_masquerade_cidrs);
    cidrs.map(|cidr| (key(*cidr), NON_MASQUERADE)).collect()
}

fn key(cidr: IpNet) -> CidrKey {
    let before = if cidr.addr().is_ipv4() { 96 } else { 0 };
    CidrKey {
        prefix_len: before + u32::from(cidr.prefix_len()),
        address: Address::from_ip(cidr.network()).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_entries() {
        let settings = NetworkSettings {
            masquerade: Some(Masquerading {
                v4: Some([192, 0, 2, 1].into()),
                v6: None,
                ports: PortRange::new(1, u16::MAX).expect("a range"),
                // Bits past the prefix mean nothing.
                non_masquerade_cidrs: ["10.1.2.3/8", "fc00::/7"]
                    .map(|cidr| cidr.parse().expect("a CIDR"))
                    .into(),
            }),
        };
        let value = Masquerade {
            v4: Address::from_ip(IpAddr::from([192, 0, 2, 1])),
            v6: Address::default(),
            first_port: 1,
            ports: u16::MAX,
            padding: 0,
        };
        assert_eq!(masquerade(&settings), [(0, value)].into());
        let v4 = CidrKey {
            prefix_len: 104,
            address: Address::from_ip(IpAddr::from([10, 0, 0, 0])).0,
        };
        let v6 = CidrKey {
            prefix_len: 7,
            address: [0xfc00_0000_u32.to_be(), 0, 0, 0],
        };
        assert_eq!(
            non_masquerade(&settings),
            [(v4, NON_MASQUERADE), (v6, NON_MASQUERADE)].into()
        );
        assert_eq!(masquerade(&NetworkSettings::default()), BTreeMap::new());
        assert_eq!(non_masquerade(&NetworkSettings::default()), BTreeMap::new());
    }

    #[test]
    fn ranges_of_ports() {
        let range = |first, last| PortRange::new(first, last);
        assert_eq!(range(0, 5), Err(InvalidPortRange { first: 0, last: 5 }));
        assert_eq!(range(6, 5), Err(InvalidPortRange { first: 6, last: 5 }));
        assert_eq!(PortRange::default().to_string().parse(), Ok(PortRange::default()));
        assert_eq!(
            "5-4".parse::<PortRange>(),
            Err("5-4 is no range of ports: it goes upwards, from 1 on".to_owned())
        );
        assert!("5".parse::<PortRange>().is_err() && "a-5".parse::<PortRange>().is_err());
        let local = range(32_768, 60_999).expect("a range");
        assert!(!PortRange::default().overlaps(local));
        assert!(PortRange::default().overlaps(range(1_024, 61_000).expect("a range")));
    }
}
