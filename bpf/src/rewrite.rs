//! Service translation by packet: a new destination on the way out, the Service's address on the way back.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes,
};
use weir_abi::address::Address;
use weir_abi::flow::flow_flags;
use weir_abi::reason::Reason;
use weir_datapath::packet::{ETHERNET, protocol, shape};

use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::{icmp, slow, subprogram};

/// Translates a packet of a known flow, as its entry in the scratch says.
#[inline(always)]
pub fn known(skb: Skb, s: &mut Scratch, from_opener: bool, changed: bool) -> Reason {
    if changed {
        subprogram::share(from_opener);
    }
    let destination = s.flags & flow_flags::REWRITE_DESTINATION != 0;
    // Straight to the backend, or from it: nothing was translated.
    if destination != from_opener {
        return Reason::Established;
    }
    s.connection.destination = s.value.rewrite_address;
    s.connection.destination_port = s.value.rewrite_port;
    if subprogram::replace(skb, destination) {
        Reason::Established
    } else {
        Reason::RewriteFailed
    }
}

/// Writes the entry by which the backend's packets find back. That of the packet's own key is in the table already.
#[inline(always)]
pub fn remember(s: &mut Scratch) -> bool {
    let mut flags = flow_flags::REWRITE_SOURCE;
    if !subprogram::key() {
        flags |= flow_flags::OPENED_BY_HIGH;
    }
    slow::fill_value(s, flags);
    s.value.rewrite_address = s.packet.destination;
    s.value.rewrite_port = s.packet.destination_port;
    subprogram::insert_flow()
}

/// Tells the connection's other entry what this one has learned, so that both live as long as the connection.
#[inline(always)]
pub fn share(s: &mut Scratch, from_opener: bool) {
    let (seen, flags) = (s.value.seen, s.value.flags & flow_flags::SHARED);
    let (address, port) = (s.value.rewrite_address, s.value.rewrite_port);
    if !from_opener {
        slow::turn(&mut s.connection);
    }
    s.connection.destination = address;
    s.connection.destination_port = port;
    let _ = subprogram::key();
    if subprogram::load_flow() && s.value.flags & flow_flags::REWRITE != 0 {
        s.value.seen = seen;
        s.value.flags |= flags;
        subprogram::store_flow();
    }
    s.value.rewrite_address = address;
    s.value.rewrite_port = port;
}

/// Puts the connection's destination in place of the packet's destination (1) or source (0) and mends the checksums.
#[inline(always)]
pub fn replace(skb: Skb, s: &Scratch, destination: u32) -> bool {
    let (old, old_port) = if destination != 0 {
        (&s.packet.destination, s.packet.destination_port)
    } else {
        (&s.packet.source, s.packet.source_port)
    };
    // Offsets of the checksum and of the port; none where the packet has none, as in later fragments.
    let transport = u32::from(s.packet.transport);
    let (checksum, port, flags) = match (s.packet.shape, s.packet.protocol) {
        (shape::LATER_FRAGMENT, _) => (ABSENT, ABSENT, 0),
        (_, protocol::TCP) => (transport + 16, transport + 2 * destination, 0),
        // RFC 768: a checksum of zero means that there is none, and stays zero.
        (_, protocol::UDP) => (transport + 6, transport + 2 * destination, BPF_F_MARK_MANGLED_0),
        _ => (ABSENT, ABSENT, 0),
    };
    let new = &s.connection.destination;
    let side = Side {
        old,
        new,
        number: destination,
    };
    let replaced = if s.packet.family == 4 {
        side.address4(skb, checksum, flags)
    } else {
        side.address6(skb, checksum, flags)
    };
    replaced
        && (port == ABSENT
            || replace_port(
                skb,
                old_port,
                s.connection.destination_port,
                port,
                checksum,
                flags,
            ))
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

/// Translates an ICMP error and the packet that it quotes, as the flow entry in the scratch says.
///
/// The quoted packet's own transport checksum stays as it is: what is quoted may be cut off before it, and nobody
/// looks at it.
#[inline(always)]
pub fn replace_quoted(skb: Skb, s: &mut Scratch) -> bool {
    let (outer_destination, old, old_port) = icmp::translated_end(s);
    let new = s.value.rewrite_address;
    let new_port = s.value.rewrite_port;
    // A router on the way may have sent the error: its own address is nobody's to translate.
    let outer = outer_destination || s.packet.source == old;
    let checksum = u32::from(s.packet.transport) + 2;
    let quoted = u32::from(s.packet.quoted);
    let side = u32::from(!outer_destination);
    let replaced = if s.packet.family == 4 {
        // The quoted header's checksum takes up what its address changes, so the ICMP checksum stays right.
        header4(skb, &old, &new, quoted, side) && (!outer || header4(skb, &old, &new, ETHERNET, side ^ 1))
    } else {
        // ICMPv6's checksum covers the outer addresses, too (RFC 4443, section 2.3).
        let pseudo = BPF_F_PSEUDO_HDR as u64;
        header6(skb, &old, &new, quoted, side, checksum, 0)
            && (!outer || header6(skb, &old, &new, ETHERNET, side ^ 1, checksum, pseudo))
    };
    replaced
        && replace_port(
            skb,
            old_port,
            new_port,
            u32::from(s.packet.quoted_transport) + 2 * side,
            checksum,
            0,
        )
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
