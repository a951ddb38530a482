//! Fragments: only the first one carries the ports.

use weir_abi::flow::{FragmentKey, FragmentValue};

use crate::maps::FRAGMENTS;
use crate::scratch::Scratch;

/// Keeps the ports of a first fragment for those that follow. Where the table refuses, they are dropped and counted.
#[inline(always)]
pub fn remember(s: &mut Scratch) {
    set_key(s);
    s.fragment_value = FragmentValue {
        source_port: s.packet.source_port,
        destination_port: s.packet.destination_port,
        protocol: s.packet.protocol,
        padding: [0; 3],
    };
    let _ = FRAGMENTS.insert(&s.fragment_key, &s.fragment_value, 0);
}

/// Gives a later fragment the ports of its first; false where that was not seen.
#[inline(always)]
pub fn recall(s: &mut Scratch) -> bool {
    set_key(s);
    // SAFETY: whole integers; a value of another packet with the same key is what the protocol has, too.
    let Some(&ports) = (unsafe { FRAGMENTS.get(&s.fragment_key) }) else {
        return false;
    };
    s.packet.source_port = ports.source_port;
    s.packet.destination_port = ports.destination_port;
    s.packet.protocol = ports.protocol;
    true
}

#[inline(always)]
fn set_key(s: &mut Scratch) {
    s.fragment_key = FragmentKey {
        source: s.packet.source,
        destination: s.packet.destination,
        identification: s.packet.identification,
        protocol: if s.packet.family == 4 {
            s.packet.protocol
        } else {
            0
        },
        padding: [0; 3],
    };
}
