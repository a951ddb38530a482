//! IP headers.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::{Builder, Extension, Fragment, checksum};
use crate::packet::protocol;

pub(super) const ETHERNET: usize = crate::packet::ETHERNET as usize;
const FRAGMENT: u8 = 44;
const MORE: u16 = 1;

pub(super) fn v4(packet: &Builder, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let segment = segment(packet);
    let (part, identification, fragment) = match &packet.fragment {
        None => (&segment[..], 0, 0),
        // RFC 791: an offset in units of eight bytes, "more fragments" above it.
        Some(f) => (
            f.part(&segment),
            f.identification as u16,
            f.offset_and_more(&segment),
        ),
    };
    let length = 20 + 4 * usize::from(packet.options);
    let mut header = vec![0x40 | (length / 4) as u8, 0];
    header.extend_from_slice(&length_field(length + part.len()));
    header.extend_from_slice(&identification.to_be_bytes());
    header.extend_from_slice(&(fragment >> 3 | (fragment & MORE) << 13).to_be_bytes());
    header.extend_from_slice(&[packet.hop_limit, packet.protocol, 0, 0]);
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    // No-operation options (RFC 791, section 3.1).
    header.resize(length, 1);
    let sum = checksum::internet(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend_from_slice(part);
    header
}

pub(super) fn v6(packet: &Builder) -> Vec<u8> {
    let segment = segment(packet);
    let (first, body) = match &packet.fragment {
        None => chain(&packet.extensions, packet.protocol, segment),
        Some(f) => {
            let (before, behind) = packet.extensions.split_at(f.after);
            let (first, whole) = chain(behind, packet.protocol, segment);
            let mut fragment = vec![first, 0];
            fragment.extend_from_slice(&f.offset_and_more(&whole).to_be_bytes());
            fragment.extend_from_slice(&f.identification.to_be_bytes());
            fragment.extend_from_slice(f.part(&whole));
            chain(before, FRAGMENT, fragment)
        }
    };
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend_from_slice(&length_field(body.len()));
    bytes.extend_from_slice(&[first, packet.hop_limit]);
    bytes.extend_from_slice(&octets(packet.source));
    bytes.extend_from_slice(&octets(packet.destination));
    bytes.extend_from_slice(&body);
    bytes
}

fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("a packet of at most 64 KiB")
        .to_be_bytes()
}

fn segment(packet: &Builder) -> Vec<u8> {
    if packet.header.is_empty() {
        return packet.payload.clone();
    }
    let mut segment = [&packet.header[..], &packet.payload[..]].concat();
    match packet.protocol {
        protocol::UDP => {
            let length = length_field(segment.len());
            segment[4..6].copy_from_slice(&length);
        }
        protocol::SCTP => {
            // The chunk's length does not count its padding (RFC 9260, section 3.2).
            let chunk = length_field(segment.len() - 12);
            segment[14..16].copy_from_slice(&chunk);
            segment.resize(segment.len().next_multiple_of(4), 0);
        }
        _ => {}
    }
    checksum::set(packet.source, packet.destination, packet.protocol, &mut segment);
    segment
}

/// Puts the extension headers in front of `body`, which is a `protocol`. The number of the first, and the bytes.
fn chain(extensions: &[Extension], protocol: u8, body: Vec<u8>) -> (u8, Vec<u8>) {
    extensions
        .iter()
        .rev()
        .fold((protocol, body), |(next, body), extension| {
            let mut bytes = extension.bytes(next);
            bytes.extend_from_slice(&body);
            (extension.number(), bytes)
        })
}

impl Extension {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Atomic(_) => FRAGMENT,
            Self::Authentication(_) => 51,
            Self::Destination(_) => 60,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::Destination(units) => {
                let mut bytes = vec![next, units];
                pad(&mut bytes, 8 + 8 * usize::from(units));
                bytes
            }
            Self::Routing(units) => {
                // RFC 8200, section 4.4: of an experimental type (RFC 4727), no segments left.
                let mut bytes = vec![next, units, 253, 0];
                bytes.resize(8 + 8 * usize::from(units), 0);
                bytes
            }
            Self::Authentication(words) => {
                let mut bytes = vec![next, words, 0, 0, 0, 0, 1, 0];
                bytes.resize(8 + 4 * usize::from(words), 0);
                bytes
            }
            Self::Atomic(identification) => [&[next, 0, 0, 0], &identification.to_be_bytes()[..]].concat(),
        }
    }
}

/// PadN options (RFC 8200, section 4.2) up to `length`, which leaves an even number of bytes.
fn pad(bytes: &mut Vec<u8>, length: usize) {
    while bytes.len() < length {
        let data = (length - bytes.len() - 2).min(254);
        bytes.extend_from_slice(&[1, data as u8]);
        bytes.resize(bytes.len() + data, 0);
    }
}

impl Fragment {
    fn part<'a>(&self, whole: &'a [u8]) -> &'a [u8] {
        whole
            .get(self.start..self.end.min(whole.len()))
            .expect("a part that the packet has")
    }

    /// RFC 8200, section 4.5: the offset in the upper 13 bits, "more fragments" in the lowest.
    fn offset_and_more(&self, whole: &[u8]) -> u16 {
        let more = if self.end < whole.len() { MORE } else { 0 };
        u16::try_from(self.start).expect("an offset below 64 KiB") | more
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
