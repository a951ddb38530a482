//! Checksums.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::header::octets;
use crate::packet::protocol;

/// RFC 1071.
pub(super) fn internet(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Writes the checksum of a transport header and what follows it, where the protocol has one.
pub(super) fn set(source: IpAddr, destination: IpAddr, protocol: u8, segment: &mut [u8]) {
    let at = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMP | protocol::ICMPV6 => 2,
        protocol::SCTP => {
            // RFC 9260, appendix A: sent with the low byte first.
            let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(segment);
            segment[8..12].copy_from_slice(&sum.to_le_bytes());
            return;
        }
        _ => return,
    };
    let sum = match protocol {
        protocol::ICMP => internet(segment),
        _ => with_pseudo_header(source, destination, protocol, segment),
    };
    // RFC 768: 0 would mean that there is none.
    let sum = if protocol == protocol::UDP && sum == 0 {
        0xffff
    } else {
        sum
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes: Vec<u8> = octets(source);
    bytes.extend_from_slice(&octets(destination));
    bytes.extend_from_slice(&(segment.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes.extend_from_slice(segment);
    internet(&bytes)
}
