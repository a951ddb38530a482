//! ICMP errors belong to the connection whose packet they quote.

use weir_abi::reason::Reason;

use crate::scratch::Scratch;
use crate::{lookup, slow, subprogram};

/// An error passes if policy allows the connection that it is about, in the direction in which it was opened.
///
/// The quoted packet must have been sent by the end that the error goes to (RFC 1122, section 3.2.2).
#[inline(always)]
pub fn error(s: &mut Scratch) -> Reason {
    if s.packet.quoted_source != s.packet.destination {
        return Reason::UnrelatedError;
    }
    slow::set_hop(&mut s.hop, &s.connection.destination_pod);
    // From here on the connection is the quoted packet's, whose sender is this one's receiver.
    s.connection.source = s.packet.quoted_source;
    s.connection.destination = s.packet.quoted_destination;
    s.connection.source_port = s.packet.quoted_source_port;
    s.connection.destination_port = s.packet.quoted_destination_port;
    s.connection.protocol = s.packet.quoted_protocol;
    s.connection.source_pod = s.connection.destination_pod;
    s.connection.destination_pod = lookup::pod(&s.packet.quoted_destination);
    if !subprogram::judge().is_forward() {
        // It may quote an answer.
        slow::turn(&mut s.connection);
        if !subprogram::judge().is_forward() {
            return Reason::UnrelatedError;
        }
    }
    Reason::RelatedError
}
