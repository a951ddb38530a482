//! The flow tables: one look-up decides an established packet.

use crate::address::Address;

/// Key of `flows4`. The end with the smaller (address, port) is `low`, so both directions of a flow meet one entry.
/// For ICMP echo the identifier stands in both ports; protocols without ports have 0.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey4 {
    /// Network byte order.
    pub low: u32,
    pub high: u32,
    /// Network byte order.
    pub low_port: u16,
    pub high_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// Key of `flows6`; see [`FlowKey4`].
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey6 {
    pub low: Address,
    pub high: Address,
    pub low_port: u16,
    pub high_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}

impl FlowKey4 {
    /// Made in two words, so that the hash, which reads words, need not wait for narrower stores to meet in memory.
    #[inline(always)]
    pub const fn new(low: (u32, u16), high: (u32, u16), protocol: u8) -> Self {
        let words = [word(low.0, high.0), word(ports(low.1, high.1), lowest(protocol))];
        // SAFETY: two words have the size and alignment of the key, and any bits are a valid key.
        #[expect(unsafe_code, reason = "see the constructor's documentation")]
        unsafe {
            core::mem::transmute::<[u64; 2], Self>(words)
        }
    }
}

impl FlowKey6 {
    /// See [`FlowKey4::new`].
    #[inline(always)]
    pub const fn new(low: (&Address, u16), high: (&Address, u16), protocol: u8) -> Self {
        let (a, b) = (&low.0.0, &high.0.0);
        let words = [
            word(a[0], a[1]),
            word(a[2], a[3]),
            word(b[0], b[1]),
            word(b[2], b[3]),
            word(ports(low.1, high.1), lowest(protocol)),
        ];
        // SAFETY: five words have the size and alignment of the key, and any bits are a valid key.
        #[expect(unsafe_code, reason = "see the constructor's documentation")]
        unsafe {
            core::mem::transmute::<[u64; 5], Self>(words)
        }
    }
}

/// The eight bytes that `first` and then `second` are in memory.
#[inline(always)]
const fn word(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// The four bytes that two ports are in memory.
#[inline(always)]
const fn ports(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

/// The four bytes that begin with this one, and are zero otherwise.
#[inline(always)]
const fn lowest(byte: u8) -> u32 {
    (byte as u32).to_le()
}

/// Value of both flow tables: everything that must be done with a packet of the flow.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowValue {
    /// [`Control::revision`](crate::config::Control) under which it was decided.
    pub revision: u32,
    /// When the last packet came, in units of the programs' clock, about a second
    /// ([`CLOCK_SHIFT`](crate::config::global::CLOCK_SHIFT)).
    pub seen: u32,
    /// Bits of [`flow_flags`].
    pub flags: u32,
    /// Network byte order; with `rewrite_source` and `rewrite_destination`.
    pub rewrite_source_port: u16,
    pub rewrite_destination_port: u16,
    /// How to reach the low end, and then the high one.
    pub hops: [Hop; 2],
    /// Rules that allowed it: at the source's egress and at the destination's ingress.
    pub egress_rule: u32,
    pub ingress_rule: u32,
    /// What a packet of a translated flow has for its ends afterwards, both of them: one may stay as it is.
    pub rewrite_source: Address,
    pub rewrite_destination: Address,
}

/// How a packet reaches one end of a flow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hop {
    /// Host side of the local pod's veth; [`TO_STACK`] for an end that the node's network stack reaches.
    pub ifindex: u32,
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
}

pub const TO_STACK: u32 = 0;

pub mod flow_flags {
    /// The connection was opened by the high end.
    pub const OPENED_BY_HIGH: u32 = 1 << 0;
    /// The end that did not open it has sent something.
    pub const ANSWERED: u32 = 1 << 1;
    /// TCP: the end that opened it has sent FIN.
    pub const OPENER_FINISHED: u32 = 1 << 2;
    /// TCP: the other end has sent FIN.
    pub const PEER_FINISHED: u32 = 1 << 3;
    /// TCP: over, by RST or by FIN from both ends.
    pub const CLOSED: u32 = 1 << 4;
    /// Packets from the end that opened it get other ends. This entry's key has the connection as it was opened.
    pub const REWRITE_FROM_OPENER: u32 = 1 << 5;
    /// Packets to the end that opened it get other ends. This entry's key has the connection as it goes on.
    pub const REWRITE_TO_OPENER: u32 = 1 << 6;
    /// Either.
    pub const REWRITE: u32 = REWRITE_FROM_OPENER | REWRITE_TO_OPENER;
    /// What the two entries of a translated connection have in common.
    pub const SHARED: u32 = ANSWERED | OPENER_FINISHED | PEER_FINISHED | CLOSED;
}

/// Key of the `fragments` LRU hash: what fragments of one packet have in common (RFC 791; RFC 8200, section 4.5).
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    /// IPv4: 16 bits. Network byte order.
    pub identification: u32,
    /// 0 in IPv6: there only the first fragment need say what follows all headers.
    pub protocol: u8,
    pub padding: [u8; 3],
}

/// Value of the `fragments` LRU hash: what only the first fragment says.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentValue {
    /// Network byte order.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub padding: [u8; 3],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_made_of_words_are_the_keys() {
        let low = Address([1, 2, 3, 4]);
        let high = Address([5, 6, 7, 8]);
        assert_eq!(
            FlowKey4::new((0x0102_0304, 0x0506), (0x0708_090a, 0x0b0c), 17),
            FlowKey4 {
                low: 0x0102_0304,
                high: 0x0708_090a,
                low_port: 0x0506,
                high_port: 0x0b0c,
                protocol: 17,
                padding: [0; 3]
            }
        );
        assert_eq!(
            FlowKey6::new((&low, 0x0506), (&high, 0x0b0c), 6),
            FlowKey6 {
                low,
                high,
                low_port: 0x0506,
                high_port: 0x0b0c,
                protocol: 6,
                padding: [0; 3]
            }
        );
    }
}
