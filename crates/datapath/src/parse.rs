//! Bytes to a [`Packet`].
//!
//! Whole headers are copied at once, since every [`Bytes::load`] is a call into the kernel. What the decision does
//! not need is not looked at: checksums, options, TCP's and UDP's own lengths, whatever follows the transport header.
//! The receiver judges those.

mod extension;
mod ip;
mod transport;

use core::mem::MaybeUninit;

use weir_abi::plain::Plain;
use weir_abi::reason::Reason;

use crate::bytes::Bytes;
use crate::packet::{ETHERNET, Packet, shape};
pub use extension::follow_extension_headers;
use ip::Ipv4Header;

/// The end of the Ethernet header and an IPv4 header, which is what most packets need. It begins two bytes before
/// the EtherType, so that the addresses are aligned.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    source_mac: u16,
    /// Network byte order.
    ether_type: u16,
    ipv4: Ipv4Header,
}

// SAFETY: `repr(C)`, integers only; 24 bytes, the sum of its fields.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl Plain for Head {}

const HEAD: u32 = ETHERNET - 4;

mod ether_type {
    pub(super) const IPV4: u16 = 0x0800_u16.to_be();
    pub(super) const ARP: u16 = 0x0806_u16.to_be();
    pub(super) const IPV6: u16 = 0x86dd_u16.to_be();
}

/// Parses the whole of a packet that the decision needs, into `packet`.
///
/// # Errors
///
/// The reason for which the packet must be dropped. `packet` is then of no use. A frame that is too short for an
/// IPv4 header is truncated, whatever its EtherType.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    *packet = Packet::default();
    let mut room = MaybeUninit::uninit();
    let head: &Head = bytes.read(HEAD, &mut room).ok_or(Reason::Truncated)?;
    match head.ether_type {
        ether_type::IPV4 => ip::outer_v4(&head.ipv4, packet)?,
        ether_type::IPV6 => ip::outer_v6(bytes, packet)?,
        ether_type::ARP => {
            packet.shape = shape::ARP;
            return Ok(());
        }
        _ => return Err(Reason::UnsupportedEtherType),
    }
    transport::parse(bytes, packet)
}
