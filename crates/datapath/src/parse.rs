//! Bytes to a [`Packet`].

use weir_abi::reason::Reason;

use crate::bytes::Bytes;
use crate::packet::Packet;

/// Parses the whole of a packet that the decision needs, into `packet`.
///
/// # Errors
///
/// The reason for which the packet must be dropped.
pub fn parse<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let _ = (bytes, packet);
    Err(Reason::Truncated)
}
