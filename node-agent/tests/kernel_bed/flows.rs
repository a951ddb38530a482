//! Entries of the flow tables.

use weir_abi::address::Address;
use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue, Hop};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// From this port to port 80.
pub fn key4(port: u16, protocol: u8) -> FlowKey4 {
    FlowKey4 {
        low: 1,
        high: 2,
        low_port: port,
        high_port: 80,
        protocol,
        padding: [0; 3],
    }
}

pub fn key6() -> FlowKey6 {
    FlowKey6 {
        low: Address([1; 4]),
        high: Address([2; 4]),
        low_port: 1,
        high_port: 80,
        protocol: TCP,
        padding: [0; 3],
    }
}

pub fn flow(seen: u32, flags: u32) -> FlowValue {
    FlowValue {
        revision: 1,
        seen,
        flags,
        rewrite_source_port: 0,
        rewrite_destination_port: 0,
        hops: [Hop::default(); 2],
        egress_rule: 0,
        ingress_rule: 0,
        rewrite_source: Address::default(),
        rewrite_destination: Address::default(),
    }
}
