//! The kernel's per-interface and per-namespace settings under `/proc/sys/net`.
//!
//! The files show and set the network namespace of the thread that opens them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::LinkError;
use crate::network::PortRange;

const ROOT: &str = "/proc/sys/net";

/// The protocol family a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// A setting of one interface: `/proc/sys/net/FAMILY/conf/INTERFACE/KEY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    pub family: Family,
    pub key: &'static str,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.key)
    }
}

impl Sysctl {
    fn path(&self, interface: &str) -> PathBuf {
        Path::new(ROOT)
            .join(self.family.to_string())
            .join("conf")
            .join(interface)
            .join(self.key)
    }
}

/// Settings of the node's end. It needs no address of its own (`addr_gen_mode` 1 is "none"): the pod has a
/// permanent entry for its gateway, and what nobody resolves sends no multicast into the pod.
pub(super) fn of_host_end(v6: bool) -> BTreeMap<Sysctl, String> {
    // What a pod sends as its node comes out of the program with the node's own address for its source, which the
    // kernel takes for a forgery unless told otherwise. The pod itself cannot use it: the program lets it send from its
    // own addresses only.
    let v4 = [("accept_local", "1"), ("forwarding", "1"), ("rp_filter", "0")];
    let with_v6 = [
        ("accept_dad", "0"),
        ("accept_ra", "0"),
        ("addr_gen_mode", "1"),
        ("disable_ipv6", "0"),
        ("forwarding", "1"),
    ];
    collect(&v4, if v6 { &with_v6 } else { &[] })
}

/// Settings of the pod's end. Runtimes create namespaces with IPv6 off; router advertisements and duplicate
/// address detection can only do harm on a wire with one other end.
pub(super) fn of_pod_end(v6: bool) -> BTreeMap<Sysctl, String> {
    let with_v6 = [("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")];
    collect(&[], if v6 { &with_v6 } else { &[] })
}

fn collect(v4: &[(&'static str, &str)], v6: &[(&'static str, &str)]) -> BTreeMap<Sysctl, String> {
    let of = |family, (key, value): &(&'static str, &str)| (Sysctl { family, key }, (*value).to_string());
    v4.iter()
        .map(|entry| of(Family::V4, entry))
        .chain(v6.iter().map(|entry| of(Family::V6, entry)))
        .collect()
}

/// The values of `keys` at `interface`, in the calling thread's namespace. What is not there is left out.
pub(super) fn read(
    interface: &str,
    keys: impl Iterator<Item = Sysctl>,
) -> Result<BTreeMap<Sysctl, String>, LinkError> {
    let mut values = BTreeMap::new();
    for key in keys {
        if let Some(value) = read_path(&key.path(interface))? {
            values.insert(key, value);
        }
    }
    Ok(values)
}

/// Sets one value, in the calling thread's namespace.
pub(super) fn write(interface: &str, key: Sysctl, value: &str) -> Result<(), LinkError> {
    write_path(&key.path(interface), value)
}

/// Makes the node forward between its interfaces, in the calling thread's namespace: both families, where
/// the kernel has them. Writes only what is not so already.
///
/// A node that takes its default route from router advertisements keeps it: an interface with `accept_ra`
/// 1 ignores them once forwarding is on, and one with 2 does not
/// (the kernel's `Documentation/networking/ip-sysctl.rst`).
///
/// A strict reverse path filter for all interfaces becomes one of each interface that is there: of the two settings
/// the stricter counts, and the pods' own must have none, since what a pod sends as its node has the node's address.
pub fn prepare_node() -> Result<(), LinkError> {
    let root = Path::new(ROOT);
    set(&root.join("ipv4/ip_forward"), "1")?;
    spread_reverse_path_filter(&root.join("ipv4/conf"))?;
    let v6 = root.join("ipv6/conf");
    let forwarding = v6.join("all/forwarding");
    if read_path(&forwarding)?.is_none_or(|value| value == "1") {
        return Ok(());
    }
    let interfaces = std::fs::read_dir(&v6).map_err(|source| LinkError::Sysctl { path: v6, source })?;
    for interface in interfaces.flatten() {
        let accept_ra = interface.path().join("accept_ra");
        if read_path(&accept_ra)?.as_deref() == Some("1") {
            write_path(&accept_ra, "2")?;
        }
    }
    write_path(&forwarding, "1")
}

/// Interfaces that come later take theirs from `default`.
fn spread_reverse_path_filter(v4: &Path) -> Result<(), LinkError> {
    let of_all = v4.join("all/rp_filter");
    if read_path(&of_all)?.as_deref() != Some("1") {
        return Ok(());
    }
    let interfaces = std::fs::read_dir(v4).map_err(|source| LinkError::Sysctl {
        path: v4.into(),
        source,
    })?;
    for interface in interfaces
        .flatten()
        .filter(|interface| interface.file_name() != "all")
    {
        let own = interface.path().join("rp_filter");
        if read_path(&own)?.as_deref() == Some("0") {
            write_path(&own, "1")?;
        }
    }
    write_path(&of_all, "0")
}

/// Keeps the node's own sockets from being given a port of this range, in the calling thread's namespace. Nothing is
/// to be done where they are given others only (`ip_local_port_range`); else the range is reserved. A socket that
/// asks for one of these ports by number still gets it.
pub fn reserve_ports(range: PortRange) -> Result<(), LinkError> {
    let root = Path::new(ROOT);
    let local = read_path(&root.join("ipv4/ip_local_port_range"))?;
    if local
        .as_deref()
        .and_then(port_range)
        .is_some_and(|local| !local.overlaps(range))
    {
        return Ok(());
    }
    let path = root.join("ipv4/ip_local_reserved_ports");
    let reserved = read_path(&path)?.unwrap_or_default();
    match with_reserved(&reserved, range) {
        Some(more) => write_path(&path, &more),
        None => Ok(()),
    }
}

fn port_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
        return None;
    };
    PortRange::new(first, last).ok()
}

/// The list with the range in it; `None` where it is in it already. The kernel writes lists like `8080,9000-9010`, in
/// order and without overlaps.
fn with_reserved(list: &str, range: PortRange) -> Option<String> {
    let covers = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return false;
        };
        first <= range.first() && range.last() <= last
    };
    if list.split(',').any(covers) {
        return None;
    }
    let separator = if list.is_empty() { "" } else { "," };
    Some(format!("{list}{separator}{}-{}", range.first(), range.last()))
}

fn set(path: &Path, value: &str) -> Result<(), LinkError> {
    if read_path(path)?.as_deref() == Some(value) {
        Ok(())
    } else {
        write_path(path, value)
    }
}

fn read_path(path: &Path) -> Result<Option<String>, LinkError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LinkError::Sysctl {
            path: path.into(),
            source,
        }),
    }
}

fn write_path(path: &Path, value: &str) -> Result<(), LinkError> {
    std::fs::write(path, value).map_err(|source| LinkError::Sysctl {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_reserved_once() {
        let range = PortRange::default();
        let reserved = |list| with_reserved(list, range);
        assert_eq!(reserved("").as_deref(), Some("61000-65535"));
        assert_eq!(
            reserved("8080,9000-9010").as_deref(),
            Some("8080,9000-9010,61000-65535")
        );
        assert_eq!(
            reserved("61001-65535").as_deref(),
            Some("61001-65535,61000-65535")
        );
        assert_eq!(reserved("8080,60000-65535"), None);
        assert_eq!(port_range("32768\t60999"), PortRange::new(32_768, 60_999).ok());
        assert_eq!(port_range("32768"), None);
    }
}
