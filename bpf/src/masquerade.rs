//! Pods speak to the outside as their node: the node's address in place of the pod's, and a port of the node's.
//!
//! A port is taken by the flow entry that the answers will meet, whose key has the node's end: the same port serves
//! connections to many destinations, and the table itself says whether one is free. Ports come from a range that the
//! node gives its own sockets none of, so what the node says for itself never meets such an entry.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use weir_abi::address::Address;
use weir_abi::config::{Masquerade, PORT_ATTEMPTS};
use weir_abi::reason::Reason;
use weir_datapath::flow;
use weir_datapath::tables::Tables as _;

use aya_ebpf::maps::lpm_trie::Key;

use crate::lookup::{Kernel, inserted};
use crate::scratch::{Scratch, translated};
use crate::{clock, maps, rewrite, subprogram};

/// What came of one port.
pub mod attempt {
    /// Another connection has it.
    pub const TAKEN: u32 = 0;
    pub const CLAIMED: u32 = 1;
    /// No other one can be tried.
    pub const NO_CHOICE: u32 = 2;
    /// It is free, and there is no room for the entry.
    pub const NO_ROOM: u32 = 3;
}

/// Gives the connection the node's address, if its destination is outside: neither a pod nor a node, nor in a range
/// that pods speak to as themselves.
#[inline(always)]
pub fn choose(s: &mut Scratch) {
    let Some(settings) = maps::MASQUERADE.get(0) else {
        return;
    };
    let address = address(settings, s.packet.family);
    if is_none(address) {
        return;
    }
    let destination = &s.connection.destination;
    if Kernel.address(destination).is_some()
        || maps::NON_MASQUERADE.get(&Key::new(128, destination.0)).is_some()
    {
        return;
    }
    s.new_source = *address;
    s.translated |= translated::SOURCE;
}

#[inline(always)]
fn address(settings: &Masquerade, family: u8) -> &Address {
    if family == 4 { &settings.v4 } else { &settings.v6 }
}

#[inline(always)]
fn is_none(address: &Address) -> bool {
    address.0[0] | address.0[1] | address.0[2] | address.0[3] == 0
}

/// Takes a port, and writes the entry by which the answers find back. `None` where all is well.
#[inline(always)]
pub fn claim() -> Option<Reason> {
    let mut number = 0;
    while number < PORT_ATTEMPTS {
        match subprogram::try_ports(number) {
            attempt::TAKEN => {}
            attempt::CLAIMED => return None,
            attempt::NO_ROOM => return Some(Reason::FlowTableFull),
            _ => break,
        }
        number += AT_ONCE;
    }
    Some(Reason::PortsExhausted)
}

/// The verifier goes through every round of a loop, and through a loop within a function of its own once.
const AT_ONCE: u32 = 8;

/// Tries so many ports, from attempt `number` on.
#[inline(always)]
pub fn try_ports(number: u32) -> u32 {
    let mut i = 0;
    while i < AT_ONCE {
        let outcome = subprogram::try_port(number + i);
        if outcome != attempt::TAKEN {
            return outcome;
        }
        i += 1;
    }
    attempt::TAKEN
}

/// Tries one port.
#[inline(always)]
pub fn try_port(s: &mut Scratch, number: u32) -> u32 {
    if !subprogram::pick_port(number) {
        return attempt::NO_CHOICE;
    }
    rewrite::set_forwarded_ends(s);
    let from_low = subprogram::key();
    if subprogram::load_flow() {
        // The same end may open again what it has had before.
        let same = rewrite::differences(&s.value.rewrite_destination, &s.packet.source)
            | (s.value.rewrite_destination_port ^ s.packet.source_port) as u32
            == 0;
        if !same && !flow::is_idle(&s.value, s.connection.protocol, clock::now()) {
            return attempt::TAKEN;
        }
        subprogram::remove_flow();
    }
    subprogram::fill_way_back(from_low);
    match subprogram::claim_flow() {
        inserted::YES => attempt::CLAIMED,
        inserted::TAKEN => attempt::TAKEN,
        _ => attempt::NO_ROOM,
    }
}

/// Gives the connection a port of the node; false where no other one can be tried. The first is the same for a pod's
/// port whatever the destination (RFC 4787, REQ-1, as far as it is free); the others are any.
#[inline(always)]
pub fn pick_port(s: &mut Scratch, number: u32) -> bool {
    let Some(settings) = maps::MASQUERADE.get(0) else {
        return false;
    };
    if !rewrite::has_replaceable_port(&s.packet) {
        s.new_source_port = s.packet.source_port;
        return number == 0;
    }
    let choice = if number == 0 {
        preferred(s)
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    };
    // A read of its own: the settings may change at any time.
    let ports = u32::from(settings.ports);
    if ports == 0 {
        return false;
    }
    let port = u32::from(settings.first_port).wrapping_add(choice % ports) as u16;
    s.new_source_port = port.to_be();
    true
}

/// The finaliser of MurmurHash3 over the pod's end.
#[inline(always)]
fn preferred(s: &Scratch) -> u32 {
    let words = &s.packet.source.0;
    let mut h = words[0] ^ words[1].rotate_left(8) ^ words[2].rotate_left(16) ^ words[3];
    h ^= u32::from(s.packet.source_port) << 16 | u32::from(s.packet.protocol);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}
