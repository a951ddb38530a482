//! Transport headers: ports, ICMP types, and the packet that an ICMP error quotes.

use core::hint::black_box;
use core::mem::MaybeUninit;

use weir_abi::plain::Plain;
use weir_abi::reason::Reason;

use super::ip;
use crate::bytes::Bytes;
use crate::packet::{ETHERNET, Packet, protocol, shape};

/// RFC 9293, section 3.1, without options. Network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledgment: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// The first eight bytes of a UDP, SCTP, TCP, ICMP or ICMPv6 header, which is also as much as an ICMP error must
/// quote (RFC 792). Network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Start([u16; 4]);

// SAFETY: `repr(C)`, integers only, and the fields fill 20 bytes without gaps.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for TcpHeader {}
// SAFETY: an array of integers.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for Start {}

impl Start {
    #[inline(always)]
    const fn source_port(&self) -> u16 {
        self.0[0]
    }

    #[inline(always)]
    const fn destination_port(&self) -> u16 {
        self.0[1]
    }

    #[inline(always)]
    const fn icmp_type(&self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    #[inline(always)]
    const fn echo_identifier(&self) -> u16 {
        self.0[2]
    }
}

const ICMP_HEADER: u16 = 8;

/// Expects everything that comes before the transport header to be in `packet`.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    // The compiler must not carry over what it knows of the fields: read anew, they look the same to the verifier
    // whichever way they came, and it goes on from here once.
    let packet = black_box(packet);
    if packet.shape == shape::LATER_FRAGMENT {
        return Ok(());
    }
    match packet.protocol {
        protocol::TCP => tcp(bytes, packet),
        protocol::UDP | protocol::SCTP => ports(bytes, packet),
        protocol::ICMP if packet.family == 4 => icmp(bytes, packet),
        protocol::ICMPV6 if packet.family == 6 => icmpv6(bytes, packet),
        _ => Ok(()),
    }
}

#[inline(always)]
fn tcp<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &TcpHeader = bytes
        .read(u32::from(packet.transport), &mut room)
        .ok_or(Reason::Truncated)?;
    packet.source_port = header.source;
    packet.destination_port = header.destination;
    packet.detail = header.flags;
    Ok(())
}

#[inline(always)]
fn ports<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Start = bytes
        .read(u32::from(packet.transport), &mut room)
        .ok_or(Reason::Truncated)?;
    packet.source_port = header.source_port();
    packet.destination_port = header.destination_port();
    Ok(())
}

#[inline(always)]
fn icmp<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Start = bytes
        .read(u32::from(packet.transport), &mut room)
        .ok_or(Reason::Truncated)?;
    packet.detail = header.icmp_type();
    if is_icmp_echo(packet.detail) {
        packet.source_port = header.echo_identifier();
        packet.destination_port = header.echo_identifier();
    } else if is_icmp_error(packet.detail) && packet.shape == shape::WHOLE {
        packet.shape = shape::ICMP_ERROR;
        packet.quoted = packet.transport.wrapping_add(ICMP_HEADER);
        if ip::quoted_v4(bytes, packet)? {
            return match packet.quoted_protocol {
                protocol::ICMP => quoted_echo(bytes, packet, is_icmp_echo),
                protocol::TCP | protocol::UDP | protocol::SCTP => quoted_ports(bytes, packet),
                _ => Ok(()),
            };
        }
    }
    Ok(())
}

#[inline(always)]
fn icmpv6<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Start = bytes
        .read(u32::from(packet.transport), &mut room)
        .ok_or(Reason::Truncated)?;
    packet.detail = header.icmp_type();
    let is_whole = packet.shape == shape::WHOLE;
    if is_icmpv6_echo(packet.detail) {
        packet.source_port = header.echo_identifier();
        packet.destination_port = header.echo_identifier();
    } else if is_whole && is_icmpv6_error(packet.detail) {
        packet.shape = shape::ICMP_ERROR;
        packet.quoted = packet.transport.wrapping_add(ICMP_HEADER);
        if ip::quoted_v6(bytes, packet)? {
            return match packet.quoted_protocol {
                protocol::ICMPV6 => quoted_echo(bytes, packet, is_icmpv6_echo),
                protocol::TCP | protocol::UDP | protocol::SCTP => quoted_ports(bytes, packet),
                _ => Ok(()),
            };
        }
    } else if is_whole && is_neighbour_discovery(packet.detail) {
        return neighbour_discovery(bytes, packet);
    }
    Ok(())
}

/// Echo and echo reply.
#[inline(always)]
const fn is_icmp_echo(icmp_type: u8) -> bool {
    icmp_type & !8 == 0
}

/// Echo and echo reply.
#[inline(always)]
const fn is_icmpv6_echo(icmp_type: u8) -> bool {
    icmp_type & !1 == 128
}

/// Unreachable, source quench, time exceeded, parameter problem. A redirect (5) quotes a packet too, but says
/// nothing of what became of it: it is a message like any other.
#[inline(always)]
const fn is_icmp_error(icmp_type: u8) -> bool {
    const ERRORS: u64 = 1 << 3 | 1 << 4 | 1 << 11 | 1 << 12;
    icmp_type <= 12 && ERRORS >> icmp_type & 1 != 0
}

/// Unreachable, too big, time exceeded, parameter problem.
#[inline(always)]
const fn is_icmpv6_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 1..=4)
}

#[inline(always)]
const fn is_neighbour_discovery(icmp_type: u8) -> bool {
    matches!(icmp_type, 133..=137)
}

/// A hop limit below 255 shows that the message has come from another link (RFC 4861, section 11.2).
#[inline(always)]
fn neighbour_discovery<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let hop_limit: u8 = bytes
        .load(ETHERNET.wrapping_add(ip::HOP_LIMIT))
        .ok_or(Reason::Truncated)?;
    if hop_limit != 255 {
        return Err(Reason::Malformed);
    }
    packet.shape = shape::NEIGHBOUR_DISCOVERY;
    Ok(())
}

#[inline(always)]
fn quoted_ports<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Start = bytes
        .read(u32::from(packet.quoted_transport), &mut room)
        .ok_or(Reason::Truncated)?;
    packet.quoted_source_port = header.source_port();
    packet.quoted_destination_port = header.destination_port();
    Ok(())
}

#[inline(always)]
fn quoted_echo<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    is_echo: impl Fn(u8) -> bool,
) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header: &Start = bytes
        .read(u32::from(packet.quoted_transport), &mut room)
        .ok_or(Reason::Truncated)?;
    if is_echo(header.icmp_type()) {
        packet.quoted_source_port = header.echo_identifier();
        packet.quoted_destination_port = header.echo_identifier();
    }
    Ok(())
}
