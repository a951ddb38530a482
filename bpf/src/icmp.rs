//! ICMP errors belong to the connection whose packet they quote.

use weir_abi::flow::flow_flags;
use weir_abi::reason::Reason;
use weir_datapath::flow;

use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::{clock, lookup, rewrite, slow, subprogram};

/// An error passes if its connection is in the flow table, or else if policy allows the connection either way; it is
/// translated as its connection's packets are.
///
/// The quoted packet must have been sent by the end that the error goes to (RFC 1122, section 3.2.2).
#[inline(always)]
pub fn error(skb: Skb, s: &mut Scratch) -> Reason {
    slow::set_hop(&mut s.hop, &s.connection.destination_pod);
    if s.packet.quoted_source != s.packet.destination {
        return Reason::UnrelatedError;
    }
    // From here on the connection is the quoted packet's, whose sender is this one's receiver.
    s.connection.source = s.packet.quoted_source;
    s.connection.destination = s.packet.quoted_destination;
    s.connection.source_port = s.packet.quoted_source_port;
    s.connection.destination_port = s.packet.quoted_destination_port;
    s.connection.protocol = s.packet.quoted_protocol;
    if !is_known(s) {
        return by_policy(s);
    }
    if s.value.flags & flow_flags::REWRITE == 0 {
        return Reason::RelatedError;
    }
    let receiver = lookup::pod(&s.value.rewrite_destination);
    slow::set_hop(&mut s.hop, &receiver);
    if subprogram::replace_quoted(skb, rewrite::SOURCE)
        && subprogram::replace_quoted(skb, rewrite::DESTINATION)
    {
        Reason::RelatedError
    } else {
        Reason::RewriteFailed
    }
}

/// Whether the connection has an entry that is worth something; it then stands in the scratch.
#[inline(always)]
fn is_known(s: &mut Scratch) -> bool {
    let Some(control) = lookup::control() else {
        return false;
    };
    let _ = subprogram::key();
    subprogram::load_flow()
        && s.value.revision == control.revision
        && !flow::is_idle(&s.value, s.connection.protocol, clock::now())
}

#[inline(always)]
fn by_policy(s: &mut Scratch) -> Reason {
    subprogram::find_pods();
    if !subprogram::judge().is_forward() {
        // It may quote an answer.
        slow::turn(&mut s.connection);
        if !subprogram::judge().is_forward() {
            return Reason::UnrelatedError;
        }
    }
    Reason::RelatedError
}
