//! Translation by packet: a new destination, a new source, or both on the way out, and the same undone on the way
//! back.

use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes,
};
use weir_abi::address::Address;
use weir_abi::flow::{FlowValue, flow_flags};
use weir_abi::reason::Reason;
use weir_datapath::packet::{ETHERNET, Packet, protocol, shape};

use crate::scratch::{Scratch, translated};
use crate::skb::Skb;
use crate::{slow, subprogram};

/// Translates a packet of a known flow, as its entry in the scratch says.
#[inline(always)]
pub fn known(skb: Skb, s: &mut Scratch, from_opener: bool, changed: bool) -> Reason {
    if changed {
        subprogram::share();
    }
    // Straight to the backend, or from it: nothing was translated.
    if (s.flags & flow_flags::REWRITE_FROM_OPENER != 0) != from_opener {
        return Reason::Established;
    }
    if subprogram::replace_ends(skb) {
        Reason::Established
    } else {
        Reason::RewriteFailed
    }
}

/// Writes both entries of a translated connection, whose decision stands in the scratch: that of the packet's own key,
/// and that by which the other end's packets find back. The scratch then holds the first one. `None` where all is
/// well.
#[inline(always)]
pub fn remember(s: &mut Scratch, flags: u32) -> Option<Reason> {
    (s.first_key4, s.first_key6) = (s.key4, s.key6);
    // The other end's first: of a translated connection with no way back nothing must go out.
    let refused = if s.translated & translated::SOURCE != 0 {
        subprogram::claim_port()
    } else {
        subprogram::remember_way_back()
    };
    if refused.is_some() {
        return refused;
    }
    (s.key4, s.key6) = (s.first_key4, s.first_key6);
    slow::fill_value(s, flags | flow_flags::REWRITE_FROM_OPENER);
    let inserted = subprogram::insert_flow();
    if !inserted {
        let _ = subprogram::key();
        subprogram::remove_flow();
        return Some(Reason::FlowTableFull);
    }
    s.connection.source = s.packet.source;
    s.connection.source_port = s.packet.source_port;
    if is_echo(&s.packet) {
        s.connection.destination_port = s.packet.destination_port;
    }
    None
}

/// The entry by which the answers of a connection that keeps its source find back.
#[inline(always)]
pub fn remember_way_back() -> bool {
    let from_low = subprogram::key();
    subprogram::fill_way_back(from_low);
    subprogram::insert_flow()
}

/// Gives the connection the ends that it goes on with.
#[inline(always)]
pub fn set_forwarded_ends(s: &mut Scratch) {
    s.connection.source = s.new_source;
    s.connection.source_port = s.new_source_port;
    if is_echo(&s.packet) {
        s.connection.destination_port = s.new_source_port;
    }
}

/// Fills the copy with what becomes of the answers.
#[inline(always)]
pub fn fill_way_back(s: &mut Scratch, from_low: bool) {
    let mut flags = flow_flags::REWRITE_TO_OPENER;
    if !from_low {
        flags |= flow_flags::OPENED_BY_HIGH;
    }
    slow::fill_value(s, flags);
    s.value.rewrite_source = s.packet.destination;
    s.value.rewrite_source_port = s.packet.destination_port;
    s.value.rewrite_destination = s.packet.source;
    s.value.rewrite_destination_port = s.packet.source_port;
}

/// Tells the connection's other entry what this one has learned, so that both live as long as the connection. The
/// other one's key has the ends that this one writes.
#[inline(always)]
pub fn share(s: &mut Scratch) {
    let (seen, flags) = (s.value.seen, s.value.flags & flow_flags::SHARED);
    let (source, destination) = (s.value.rewrite_source, s.value.rewrite_destination);
    let ports = (s.value.rewrite_source_port, s.value.rewrite_destination_port);
    s.connection.source = source;
    s.connection.destination = destination;
    (s.connection.source_port, s.connection.destination_port) = ports;
    let _ = subprogram::key();
    if subprogram::load_flow() && s.value.flags & flow_flags::REWRITE != 0 {
        s.value.seen = seen;
        s.value.flags |= flags;
        subprogram::store_flow();
    }
    s.value.rewrite_source = source;
    s.value.rewrite_destination = destination;
    (s.value.rewrite_source_port, s.value.rewrite_destination_port) = ports;
}

/// Gives the packet the ends that the entry in the scratch says.
#[inline(always)]
pub fn replace_ends(skb: Skb, s: &Scratch) -> bool {
    let (packet, value) = (&s.packet, &s.value);
    let ports = (packet.source_port ^ value.rewrite_source_port) as u32;
    let same_source = differences(&packet.source, &value.rewrite_source) | ports == 0;
    let ports = (packet.destination_port ^ value.rewrite_destination_port) as u32;
    let same_destination = differences(&packet.destination, &value.rewrite_destination) | ports == 0;
    (same_source || subprogram::replace(skb, SOURCE))
        && (same_destination || subprogram::replace(skb, DESTINATION))
}

/// 0 where the addresses are equal. Without a branch a word, which the verifier would follow.
#[inline(always)]
pub fn differences(a: &Address, b: &Address) -> u32 {
    (a.0[0] ^ b.0[0]) | (a.0[1] ^ b.0[1]) | (a.0[2] ^ b.0[2]) | (a.0[3] ^ b.0[3])
}

pub const SOURCE: u32 = 0;
pub const DESTINATION: u32 = 1;

/// The field for this side, of two that stand one behind the other. By arithmetic: with a branch, the verifier would
/// follow everything behind it twice.
///
/// # Safety
///
/// `source` must point into a struct in which such a field for the destination follows.
#[inline(always)]
unsafe fn one_of<'a, T>(source: *const T, side: u32) -> &'a T {
    unsafe { &*source.add((side & 1) as usize) }
}

const _: () = {
    assert!(offset_of!(Packet, destination) == offset_of!(Packet, source) + 16);
    assert!(offset_of!(Packet, destination_port) == offset_of!(Packet, source_port) + 2);
    assert!(offset_of!(Packet, quoted_destination) == offset_of!(Packet, quoted_source) + 16);
    assert!(offset_of!(Packet, quoted_destination_port) == offset_of!(Packet, quoted_source_port) + 2);
    assert!(offset_of!(FlowValue, rewrite_destination) == offset_of!(FlowValue, rewrite_source) + 16);
    assert!(
        offset_of!(FlowValue, rewrite_destination_port) == offset_of!(FlowValue, rewrite_source_port) + 2
    );
};

/// Replaces the packet's [`SOURCE`] or [`DESTINATION`] and mends the checksums.
#[inline(always)]
pub fn replace(skb: Skb, s: &Scratch, side: u32) -> bool {
    let (packet, value) = (&raw const s.packet, &raw const s.value);
    // SAFETY: both point into the scratch.
    let (old, old_port, new, new_port) = unsafe {
        (
            one_of(&raw const (*packet).source, side),
            *one_of(&raw const (*packet).source_port, side),
            one_of(&raw const (*value).rewrite_source, side),
            *one_of(&raw const (*value).rewrite_source_port, side),
        )
    };
    subprogram::find_fields(side);
    let Fields {
        address_checksum,
        checksum,
        port,
        flags,
    } = s.fields;
    let side = Side {
        old,
        new,
        number: side,
    };
    let replaced = if s.packet.family == 4 {
        side.address4(skb, address_checksum, flags)
    } else {
        side.address6(skb, address_checksum, flags)
    };
    replaced && (port == ABSENT || replace_port(skb, old_port, new_port, port, checksum, flags))
}

/// Offsets of what a new address and a new port change in the transport header; [`ABSENT`] where there is none, as in
/// later fragments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fields {
    /// The checksum, if it covers the addresses.
    address_checksum: u32,
    checksum: u32,
    port: u32,
    /// Of the helper that mends the checksum.
    flags: u32,
}

/// Leaves them in the scratch: read from there, they are the same to the verifier for every protocol.
#[inline(always)]
pub fn find_fields(s: &mut Scratch, side: u32) {
    s.fields = fields(s, side);
}

#[inline(always)]
fn fields(s: &Scratch, side: u32) -> Fields {
    let transport = u32::from(s.packet.transport);
    // The identifier of an echo is its port at both ends, and stands in the packet once.
    let identifier = if side == SOURCE && is_echo(&s.packet) {
        transport + 4
    } else {
        ABSENT
    };
    let with = |checksum: u32, port, flags| Fields {
        address_checksum: checksum,
        checksum,
        port,
        flags,
    };
    match (s.packet.shape, s.packet.protocol) {
        (shape::LATER_FRAGMENT, _) => with(ABSENT, ABSENT, 0),
        (_, protocol::TCP) => with(transport + 16, transport + 2 * side, 0),
        // RFC 768: a checksum of zero means that there is none, and stays zero.
        (_, protocol::UDP) => with(transport + 6, transport + 2 * side, BPF_F_MARK_MANGLED_0),
        (_, protocol::ICMPV6) => with(transport + 2, identifier, 0),
        // RFC 792: the checksum begins with the type.
        (_, protocol::ICMP) => Fields {
            address_checksum: ABSENT,
            ..with(transport + 2, identifier, 0)
        },
        _ => with(ABSENT, ABSENT, 0),
    }
}

/// Echo and echo reply.
#[inline(always)]
fn is_echo(packet: &Packet) -> bool {
    packet.protocol == protocol::ICMP && packet.detail & !8 == 0
        || packet.protocol == protocol::ICMPV6 && packet.detail & !1 == 128
}

/// Whether the packet's port, or what stands for one, can be replaced.
#[inline(always)]
pub fn has_replaceable_port(packet: &Packet) -> bool {
    has_port(packet.protocol) || is_echo(packet)
}

/// Whether ports of this protocol can be replaced. Not SCTP's: its checksum (RFC 9260, appendix A) covers the whole
/// packet, and there is no helper that mends it.
#[inline(always)]
pub fn has_port(number: u8) -> bool {
    number == protocol::TCP || number == protocol::UDP
}

/// Every packet begins with something else.
const ABSENT: u32 = 0;

/// The address to replace. `number` is 0 for the source and 1 for the destination.
struct Side<'a> {
    old: &'a Address,
    new: &'a Address,
    number: u32,
}

impl Side<'_> {
    #[inline(always)]
    fn address4(&self, skb: Skb, checksum: u32, flags: u32) -> bool {
        let (from, to) = (self.old.v4() as u64, self.new.v4() as u64);
        let flags = (BPF_F_PSEUDO_HDR | flags | 4) as u64;
        // SAFETY: a helper that checks the offset itself.
        let done =
            checksum == ABSENT || unsafe { bpf_l4_csum_replace(skb.0, checksum, from, to, flags) } == 0;
        done && header4(skb, self.old, self.new, ETHERNET, self.number)
    }

    #[inline(always)]
    fn address6(&self, skb: Skb, checksum: u32, flags: u32) -> bool {
        let flags = (BPF_F_PSEUDO_HDR | flags) as u64;
        header6(skb, self.old, self.new, ETHERNET, self.number, checksum, flags)
    }
}

#[inline(always)]
fn replace_port(skb: Skb, old: u16, new: u16, offset: u32, checksum: u32, flags: u32) -> bool {
    // SAFETY: helpers that check every offset themselves.
    unsafe {
        bpf_l4_csum_replace(skb.0, checksum, old as u64, new as u64, (flags | 2) as u64) == 0
            && bpf_skb_store_bytes(skb.0.cast(), offset, (&raw const new).cast(), 2, 0) == 0
    }
}

/// Translates an end of the packet that an ICMP error quotes, and the error's own, as the flow entry in the scratch
/// says. The quoted packet went the other way, so its source gets what the entry has for a destination.
///
/// The quoted packet's own transport checksum stays as it is: what is quoted may be cut off before it, and nobody
/// looks at it.
#[inline(always)]
pub fn replace_quoted(skb: Skb, s: &Scratch, side: u32) -> bool {
    let (packet, value) = (&raw const s.packet, &raw const s.value);
    // SAFETY: both point into the scratch.
    let (old, old_port, new, new_port) = unsafe {
        (
            one_of(&raw const (*packet).quoted_source, side),
            *one_of(&raw const (*packet).quoted_source_port, side),
            one_of(&raw const (*value).rewrite_source, side ^ 1),
            *one_of(&raw const (*value).rewrite_source_port, side ^ 1),
        )
    };
    let packet = &s.packet;
    // A router on the way may have sent the error: its own address is nobody's to translate.
    let outer = side == SOURCE || packet.source == packet.quoted_destination;
    let checksum = u32::from(packet.transport) + 2;
    let quoted = u32::from(packet.quoted);
    let replaced = if packet.family == 4 {
        // The quoted header's checksum takes up what its address changes, so the ICMP checksum stays right.
        header4(skb, old, new, quoted, side) && (!outer || header4(skb, old, new, ETHERNET, side ^ 1))
    } else {
        // ICMPv6's checksum covers the outer addresses, too (RFC 4443, section 2.3).
        let pseudo = BPF_F_PSEUDO_HDR as u64;
        header6(skb, old, new, quoted, side, checksum, 0)
            && (!outer || header6(skb, old, new, ETHERNET, side ^ 1, checksum, pseudo))
    };
    let transport = u32::from(packet.quoted_transport);
    let has_port = has_port(packet.quoted_protocol);
    // Of an echo: see `fields`.
    let port = transport + if has_port { 2 * side } else { 4 };
    let is_to_do = old_port != new_port && (has_port || side == SOURCE);
    replaced && (!is_to_do || replace_port(skb, old_port, new_port, port, checksum, 0))
}

/// `side` is 0 for the source and 1 for the destination.
#[inline(always)]
fn header4(skb: Skb, old: &Address, new: &Address, header: u32, side: u32) -> bool {
    // SAFETY: helpers that check every offset themselves.
    unsafe {
        bpf_l3_csum_replace(skb.0, header + 10, old.v4() as u64, new.v4() as u64, 4) == 0
            && bpf_skb_store_bytes(
                skb.0.cast(),
                header + 12 + 4 * side,
                (&raw const new.0[3]).cast(),
                4,
                0,
            ) == 0
    }
}

#[inline(always)]
fn header6(
    skb: Skb,
    old: &Address,
    new: &Address,
    header: u32,
    side: u32,
    checksum: u32,
    flags: u64,
) -> bool {
    // SAFETY: helpers that check every offset themselves.
    unsafe {
        let difference = bpf_csum_diff(
            (&raw const old.0).cast_mut().cast(),
            16,
            (&raw const new.0).cast_mut().cast(),
            16,
            0,
        );
        difference >= 0
            && (checksum == ABSENT || bpf_l4_csum_replace(skb.0, checksum, 0, difference as u64, flags) == 0)
            && bpf_skb_store_bytes(
                skb.0.cast(),
                header + 8 + 16 * side,
                (&raw const new.0).cast(),
                16,
                0,
            ) == 0
    }
}
