//! CIDRs as people write them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{NotUnderstood, Report};
use crate::problem::Code;

/// Reads a CIDR. One with host bits set means its network, which the report says.
pub(super) fn cidr(text: &str, path: &str, report: &mut Report) -> Result<IpNet, NotUnderstood> {
    let Ok(written) = text.parse::<IpNet>() else {
        report.add(Code::InvalidCidr, path, explain(text));
        return Err(NotUnderstood);
    };
    if let IpAddr::V6(address) = written.addr()
        && address.to_ipv4_mapped().is_some()
    {
        let message = format!("{text:?} is an IPv4 address written as IPv6; write it as IPv4");
        report.add(Code::InvalidCidr, path, message);
        return Err(NotUnderstood);
    }
    let network = written.trunc();
    if network != written {
        let message = format!("{text:?} has bits set past its prefix length; it is read as {network}");
        report.add(Code::HostBitsSet, path, message);
    }
    Ok(network)
}

/// What keeps a text from being a CIDR.
fn explain(text: &str) -> String {
    if text.parse::<IpAddr>().is_ok() {
        return format!("{text:?} is an address without a prefix length, such as /32");
    }
    let address = text.split_once('/').map(|(address, _)| address.parse::<IpAddr>());
    match address {
        Some(Ok(IpAddr::V4(_))) => format!("{text:?} needs a prefix length of 0 to 32"),
        Some(Ok(IpAddr::V6(_))) => format!("{text:?} needs a prefix length of 0 to 128"),
        Some(Err(_)) | None => format!("{text:?} is not a CIDR such as 10.0.0.0/8 or fd00::/8"),
    }
}
