//! IPv6 extension headers (RFC 8200, section 4).

use core::hint::black_box;
use core::mem::MaybeUninit;

use weir_abi::limits::EXTENSION_HEADERS;
use weir_abi::plain::Plain;
use weir_abi::reason::Reason;

use crate::bytes::Bytes;

const HOP_BY_HOP: u64 = 0;
const ROUTING: u64 = 43;
const FRAGMENT: u64 = 44;
const AUTHENTICATION: u64 = 51;
const DESTINATION: u64 = 60;

/// The first eight bytes of an extension header. Only a fragment header (RFC 8200, section 4.5) has the last two
/// fields, and it has no length. Network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct ExtensionHeader {
    next_header: u8,
    length: u8,
    offset_and_more: u16,
    pub(super) identification: u32,
}

// SAFETY: `repr(C)`, integers only, and the fields fill eight bytes without gaps.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for ExtensionHeader {}

impl ExtensionHeader {
    const OFFSET: u16 = 0xfff8_u16.to_be();
    const OFFSET_OR_MORE: u16 = 0xfff9_u16.to_be();

    /// Of a fragment header: whether the packet is but a part. If it is not, it is an atomic fragment (RFC 6946),
    /// which is whole.
    #[inline(always)]
    pub(super) const fn is_fragment(&self) -> bool {
        self.offset_and_more & Self::OFFSET_OR_MORE != 0
    }
}

/// Whether a header is one of those that are followed. What else may come, ESP (50) and "no next header" (59) among
/// it, counts as the packet's protocol.
#[inline(always)]
pub(super) const fn is_extension(next_header: u8) -> bool {
    contains(ALL, next_header as u64)
}

/// Follows the headers from `offset` on, the first of which is a `next_header`. A later fragment ends the chain:
/// what it carries is not the beginning of any header.
#[inline(always)]
pub(super) fn follow<B: Bytes + ?Sized>(bytes: &B, next_header: u8, offset: u32) -> Result<Chain, Reason> {
    match bytes.follow_extension_headers(u64::from(next_header), u64::from(offset)) {
        Chain::TRUNCATED => Err(Reason::Truncated),
        Chain::TOO_MANY => Err(Reason::TooManyHeaders),
        // A fragment of a fragment: RFC 8200 has each header at most once.
        chain if chain >= 2 * Chain::ONE_FRAGMENT => Err(Reason::Malformed),
        chain => Ok(Chain(chain)),
    }
}

/// Where a chain of headers leads, in one word, because that is all that a BPF function can return.
///
/// | bits | |
/// |---|---|
/// | 0 to 15 | offset of what follows the headers |
/// | 16 to 31 | offset of the fragment header, 0 if there is none |
/// | 32 to 39 | protocol number of what follows |
/// | 40 to 55 | not 0 in a later fragment |
/// | 57 to 59 | number of fragment headers; if it is above 1, bits 16 to 31 mean nothing |
///
/// No offset is as small as [`TRUNCATED`](Self::TRUNCATED) and [`TOO_MANY`](Self::TOO_MANY), and none exceeds
/// 16 bits: an Ethernet, an ICMPv6 and two IPv6 headers with all their extensions are below 26 KiB.
#[derive(Clone, Copy)]
pub(super) struct Chain(u64);

const _: () = assert!(EXTENSION_HEADERS <= 7, "three bits count the fragment headers");

impl Chain {
    const TRUNCATED: u64 = 0;
    const TOO_MANY: u64 = 1;
    const ONE_FRAGMENT: u64 = 1 << 57;

    #[inline(always)]
    pub(super) const fn offset(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    pub(super) const fn fragment_header(self) -> Option<u32> {
        match self.0 as u32 >> 16 {
            0 => None,
            offset => Some(offset),
        }
    }

    #[inline(always)]
    pub(super) const fn protocol(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline(always)]
    pub(super) const fn is_later_fragment(self) -> bool {
        (self.0 >> 40) as u16 != 0
    }
}

/// What [`Bytes::follow_extension_headers`] does. The result is for this module to read.
///
/// There is one way through a turn of the loop, so that the verifier goes through it once for each number of headers
/// and not once for each sequence of kinds. So whether a header is a fragment header becomes a number, not a branch.
#[inline(always)]
pub fn follow_extension_headers<B: Bytes + ?Sized>(bytes: &B, next_header: u64, offset: u64) -> u64 {
    let mut next_header = next_header;
    let mut offset = offset;
    let mut fragments = 0_u64;
    // A bound that the compiler does not know keeps it from unrolling.
    let mut left = black_box(u64::from(EXTENSION_HEADERS));
    while contains(ALL, next_header) {
        if left == 0 {
            return Chain::TOO_MANY;
        }
        left = left.wrapping_sub(1);
        let mut room = MaybeUninit::uninit();
        let Some(header): Option<&ExtensionHeader> = bytes.read(offset as u32, &mut room) else {
            return Chain::TRUNCATED;
        };
        let is_fragment = bit(FRAGMENTS, next_header);
        let only_fragment = is_fragment.wrapping_neg();
        fragments = fragments.wrapping_add((Chain::ONE_FRAGMENT | offset << 16) & only_fragment);
        // A fragment header has eight bytes and no length field: 16 bits to the right, nothing is left of it.
        let units = bit(NOT_IN_EIGHTS, next_header) | is_fragment << 4;
        offset = offset
            .wrapping_add(8)
            .wrapping_add(u64::from(header.length) << 3 >> units);
        // Behind a later fragment's header, the number is none that is followed.
        let later = u64::from(header.offset_and_more & ExtensionHeader::OFFSET) << 8;
        next_header = u64::from(header.next_header) | later & only_fragment;
    }
    // Of the last header only the beginning has been read, and what follows it may be nothing.
    match bytes.load::<u8>((offset as u32).wrapping_sub(1)) {
        Some(_) => fragments | next_header << 32 | offset,
        None => Chain::TRUNCATED,
    }
}

/// Sets of protocol numbers up to 63: bit `n` is set for number `n`.
const ALL: u64 = 1 << HOP_BY_HOP | 1 << ROUTING | 1 << FRAGMENT | 1 << AUTHENTICATION | 1 << DESTINATION;
/// Whose length field counts words of four bytes (RFC 4302, section 2.2), where others count eight. It makes no
/// difference for the fragment header; a set of one, however, the compiler would compare with, and branch.
const NOT_IN_EIGHTS: u64 = 1 << AUTHENTICATION | 1 << FRAGMENT;
/// Two for the same reason; 63 is never asked for.
const FRAGMENTS: u64 = 1 << FRAGMENT | 1 << 63;

#[inline(always)]
const fn contains(set: u64, next_header: u64) -> bool {
    next_header <= DESTINATION && bit(set, next_header) != 0
}

#[inline(always)]
const fn bit(set: u64, next_header: u64) -> u64 {
    set >> next_header & 1
}
