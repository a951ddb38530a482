use weir_abi::address::Address;

use crate::packet::Packet;

/// Every bit set: what a parser must leave nothing of, so that a field that it does not write shows.
pub const FULL: Packet = Packet {
    source: Address([u32::MAX; 4]),
    destination: Address([u32::MAX; 4]),
    source_port: u16::MAX,
    destination_port: u16::MAX,
    protocol: u8::MAX,
    family: u8::MAX,
    shape: u8::MAX,
    detail: u8::MAX,
    transport: u16::MAX,
    quoted: u16::MAX,
    quoted_transport: u16::MAX,
    padding: u16::MAX,
    identification: u32::MAX,
    padding2: u32::MAX,
    quoted_source: Address([u32::MAX; 4]),
    quoted_destination: Address([u32::MAX; 4]),
    quoted_source_port: u16::MAX,
    quoted_destination_port: u16::MAX,
    quoted_protocol: u8::MAX,
    padding3: [u8::MAX; 3],
};
