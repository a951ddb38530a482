//! Test packets, whole from the Ethernet header on.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use etherparse::PacketBuilder;

use crate::floor::{TEMPLATE_BYTES, Template};

/// Longer than a template with the shortest headers.
const PAYLOAD: [u8; 64] = [0; 64];
const HOP_LIMIT: u8 = 64;
const WINDOW: u16 = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    Syn,
    SynAck,
    Ack,
}

pub(super) fn packet(kind: Kind, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let network = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            link.ipv4(from.ip().octets(), to.ip().octets(), HOP_LIMIT)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            link.ipv6(from.ip().octets(), to.ip().octets(), HOP_LIMIT)
        }
        _ => bail!("{from} and {to} are of two families"),
    };
    let mut bytes = Vec::new();
    if kind == Kind::Udp {
        network.udp(from.port(), to.port()).write(&mut bytes, &PAYLOAD)?;
        return Ok(bytes);
    }
    let tcp = network.tcp(from.port(), to.port(), 1, WINDOW);
    let tcp = match kind {
        Kind::Syn => tcp.syn(),
        Kind::SynAck => tcp.syn().ack(1),
        Kind::Ack | Kind::Udp => tcp.ack(1),
    };
    tcp.write(&mut bytes, &PAYLOAD)?;
    Ok(bytes)
}

/// The template that puts this packet back; with `opening`, from another source port each time, from 1025 on.
pub(super) fn template(packet: &[u8], opening: bool) -> Template {
    let mut bytes = [0; TEMPLATE_BYTES];
    bytes.copy_from_slice(&packet[..TEMPLATE_BYTES]);
    let source_port = if packet[12..14] == [0x08, 0x00] { 34 } else { 54 };
    Template {
        bytes,
        port_offset: if opening { source_port } else { 0 },
        port: 1_024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ports_and_flags_stand_where_they_should() {
        let v4 = packet(Kind::Syn, at("10.0.0.1:1025"), at("10.0.0.2:80")).expect("v4");
        assert_eq!((&v4[34..38], v4[47]), (&[0x04, 0x01, 0, 80][..], 0x02));
        let v6 = packet(Kind::SynAck, at("[fd00::1]:1025"), at("[fd00::2]:80")).expect("v6");
        assert_eq!((&v6[54..58], v6[67]), (&[0x04, 0x01, 0, 80][..], 0x12));
        assert!(packet(Kind::Udp, at("10.0.0.1:1"), at("[fd00::2]:80")).is_err());
    }

    #[test]
    fn every_packet_is_long_enough_for_its_template() {
        for (kind, from, to) in [
            (Kind::Udp, "10.0.0.1:1025", "10.0.0.2:80"),
            (Kind::Ack, "[fd00::1]:1025", "[fd00::2]:80"),
        ] {
            let packet = packet(kind, at(from), at(to)).expect("a packet");
            let template = template(&packet, true);
            assert_eq!(template.bytes[..], packet[..TEMPLATE_BYTES]);
            let port = template.port_offset as usize;
            assert_eq!(packet[port..port + 2], 1_025_u16.to_be_bytes());
        }
    }
}
