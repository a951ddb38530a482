//! IPv4 and IPv6 headers, of a packet and of one that an ICMP error quotes.

use core::mem::MaybeUninit;

use weir_abi::address::Address;
use weir_abi::plain::Plain;
use weir_abi::reason::Reason;

use super::extension::{self, ExtensionHeader};
use crate::bytes::Bytes;
use crate::packet::{ETHERNET, Packet, shape};

/// RFC 791, section 3.1, without options. Network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Ipv4Header {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    identification: u16,
    flags_and_offset: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// RFC 8200, section 3. Network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version: u8,
    flow: [u8; 3],
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: Address,
    destination: Address,
}

// SAFETY: `repr(C)`, integers only, and the fields fill 20 bytes without gaps.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for Ipv4Header {}
// SAFETY: `repr(C)`, integers, arrays and a `Plain`, and the fields fill 40 bytes without gaps.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for Ipv6Header {}

/// Offset of the hop limit in an IPv6 header.
pub(super) const HOP_LIMIT: u32 = 7;

const IPV6_HEADER: u32 = size_of::<Ipv6Header>() as u32;
const IPV6_PAYLOAD: u32 = ETHERNET + IPV6_HEADER;

#[inline(always)]
pub(super) fn outer_v4(header: &Ipv4Header, packet: &mut Packet) -> Result<(), Reason> {
    header.check()?;
    // Linux writes 0 for packets above 64 KiB that segmentation offload has yet to cut (BIG TCP, 6.3); with 1
    // taken from both sides, that is the largest length.
    if u16::from_be(header.total_length).wrapping_sub(1) < header.length().wrapping_sub(1) {
        return Err(Reason::Malformed);
    }
    packet.family = 4;
    packet.source = Address::from_v4(header.source);
    packet.destination = Address::from_v4(header.destination);
    packet.protocol = header.protocol;
    packet.transport = (ETHERNET as u16).wrapping_add(header.length());
    if header.flags_and_offset & Ipv4Header::OFFSET_OR_MORE != 0 {
        packet.identification = u32::from(header.identification);
        packet.shape = fragment(header.is_later_fragment());
    }
    Ok(())
}

#[inline(always)]
pub(super) fn outer_v6<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Ipv6Header = bytes.read(ETHERNET, &mut room).ok_or(Reason::Truncated)?;
    header.check()?;
    packet.family = 6;
    packet.source = header.source;
    packet.destination = header.destination;
    packet.protocol = header.next_header;
    packet.transport = IPV6_PAYLOAD as u16;
    if extension::is_extension(header.next_header) {
        extensions(bytes, header.next_header, packet)
    } else {
        Ok(())
    }
}

#[inline(always)]
fn extensions<B: Bytes + ?Sized>(bytes: &B, next_header: u8, packet: &mut Packet) -> Result<(), Reason> {
    let chain = extension::follow(bytes, next_header, IPV6_PAYLOAD)?;
    packet.protocol = chain.protocol();
    packet.transport = chain.offset();
    if let Some(offset) = chain.fragment_header() {
        let mut room = MaybeUninit::uninit();
        let header: &ExtensionHeader = bytes.read(offset, &mut room).ok_or(Reason::Truncated)?;
        if header.is_fragment() {
            packet.identification = header.identification;
            packet.shape = fragment(chain.is_later_fragment());
        }
    }
    Ok(())
}

#[inline(always)]
const fn fragment(is_later: bool) -> u8 {
    if is_later {
        shape::LATER_FRAGMENT
    } else {
        shape::FIRST_FRAGMENT
    }
}

/// Whether a transport header follows. The total length is not looked at: some routers change it before they quote.
#[inline(always)]
pub(super) fn quoted_v4<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<bool, Reason> {
    let offset = u32::from(packet.quoted);
    let mut room = MaybeUninit::uninit();
    let header: &Ipv4Header = bytes.read(offset, &mut room).ok_or(Reason::Truncated)?;
    header.check()?;
    packet.quoted_source = Address::from_v4(header.source);
    packet.quoted_destination = Address::from_v4(header.destination);
    packet.quoted_protocol = header.protocol;
    packet.quoted_transport = (offset as u16).wrapping_add(header.length());
    Ok(!header.is_later_fragment())
}

/// Whether a transport header follows.
#[inline(always)]
pub(super) fn quoted_v6<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<bool, Reason> {
    let offset = u32::from(packet.quoted);
    let mut room = MaybeUninit::uninit();
    let header: &Ipv6Header = bytes.read(offset, &mut room).ok_or(Reason::Truncated)?;
    header.check()?;
    packet.quoted_source = header.source;
    packet.quoted_destination = header.destination;
    let chain = extension::follow(bytes, header.next_header, offset.wrapping_add(IPV6_HEADER))?;
    packet.quoted_protocol = chain.protocol();
    packet.quoted_transport = chain.offset();
    Ok(!chain.is_later_fragment())
}

impl Ipv4Header {
    const OFFSET: u16 = 0x1fff_u16.to_be();
    const OFFSET_OR_MORE: u16 = 0x3fff_u16.to_be();

    /// Version 4, and a length of 5 to 15 words.
    #[inline(always)]
    fn check(&self) -> Result<(), Reason> {
        if matches!(self.version_and_length, 0x45..=0x4f) {
            Ok(())
        } else {
            Err(Reason::Malformed)
        }
    }

    #[inline(always)]
    fn length(&self) -> u16 {
        u16::from(self.version_and_length & 0x0f) << 2
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        self.flags_and_offset & Self::OFFSET != 0
    }
}

impl Ipv6Header {
    /// Version 6, and no IPv4 address in IPv6's clothes: on the wire there are none (RFC 4038, section 4.2), and here
    /// they would pass for the IPv4 address.
    #[inline(always)]
    fn check(&self) -> Result<(), Reason> {
        if self.version >> 4 == 6 && !self.source.is_v4() && !self.destination.is_v4() {
            Ok(())
        } else {
            Err(Reason::Malformed)
        }
    }
}
