//! Flow keys, and what a packet does to its flow entry.

use weir_abi::address::Address;
use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue, TO_STACK, flow_flags};
use weir_abi::limits::idle_seconds;

use crate::packet::{protocol, tcp_flags};

/// The key of the flow between two ends, and 1 where the first one is the low end. Addresses and ports in network
/// byte order.
#[inline(always)]
pub fn key4(first: (u32, u16), second: (u32, u16), protocol: u8) -> (FlowKey4, u32) {
    // The order is that of the machine's integers; any total order would do. 48 bits each, so the sign of the
    // difference is the comparison.
    let (a, b) = (
        u64::from(first.0) << 16 | u64::from(first.1),
        u64::from(second.0) << 16 | u64::from(second.1),
    );
    let is_low = (a.wrapping_sub(b) >> 63) as u32;
    let (low, high) = if is_low != 0 {
        (first, second)
    } else {
        (second, first)
    };
    let key = FlowKey4::new(low, high, protocol);
    (key, is_low)
}

/// See [`key4`].
#[inline(always)]
pub fn key6(first: (&Address, u16), second: (&Address, u16), protocol: u8) -> (FlowKey6, u32) {
    let is_low = u32::from(first_is_low6(first, second));
    let (low, high) = if is_low != 0 {
        (first, second)
    } else {
        (second, first)
    };
    let key = FlowKey6::new(low, high, protocol);
    (key, is_low)
}

/// The last words differ most often, so they are compared first.
#[inline(always)]
fn first_is_low6(first: (&Address, u16), second: (&Address, u16)) -> bool {
    let mut i = 4;
    while i > 0 {
        i -= 1;
        if first.0.0[i] != second.0.0[i] {
            return first.0.0[i] < second.0.0[i];
        }
    }
    first.1 < second.1
}

/// What to do with a packet whose flow has an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It belongs to the connection.
    Forward,
    /// It belongs to the connection and ends it: forward, then remove the entry.
    Close,
    /// The connection was judged under another policy: judge it again.
    Rejudge,
    /// It opens a connection of its own: judge it as if there were no entry.
    Open,
}

/// A packet of a flow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whether the low end sent it.
    pub from_low: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Meaningful for TCP only.
    pub tcp_flags: u8,
    /// In units of the programs' clock.
    pub now: u32,
    /// [`Control::revision`](weir_abi::config::Control::revision).
    pub revision: u32,
}

impl Arrival {
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// A TCP packet that can only be the first of a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }

    /// A TCP packet after which a connection has nothing more to say.
    #[inline(always)]
    pub fn ends(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0
    }
}

/// Decides what `arrival` does to `flow`, and the flags that the entry has afterwards.
#[inline(always)]
pub fn step(flow: &FlowValue, arrival: &Arrival) -> (Step, u32) {
    let from_opener = (flow.flags & flow_flags::OPENED_BY_HIGH == 0) == arrival.from_low;
    let mut flags = flow.flags;
    if !from_opener {
        flags |= flow_flags::ANSWERED;
    }
    if arrival.is_tcp() {
        // A SYN is a retransmission only as long as nobody has answered it.
        if arrival.opens() && (!from_opener || flow.flags & flow_flags::ANSWERED != 0) {
            return (Step::Open, flow.flags);
        }
        const BOTH: u32 = flow_flags::OPENER_FINISHED | flow_flags::PEER_FINISHED;
        let was_finished = flow.flags & BOTH == BOTH;
        if arrival.tcp_flags & tcp_flags::FIN != 0 {
            flags |= if from_opener {
                flow_flags::OPENER_FINISHED
            } else {
                flow_flags::PEER_FINISHED
            };
        }
        if was_finished || arrival.tcp_flags & tcp_flags::RST != 0 {
            flags |= flow_flags::CLOSED;
        }
    }
    if is_idle(flow, arrival.protocol, arrival.now) {
        return (Step::Open, flow.flags);
    }
    if flow.revision != arrival.revision {
        return (Step::Rejudge, flags);
    }
    if flags & flow_flags::CLOSED != 0 {
        (Step::Close, flags)
    } else {
        (Step::Forward, flags)
    }
}

/// The part of [`step`] that decides most packets: where it gives flags, `step` says [`Step::Forward`] with the same
/// ones. [`Arrival::tcp_flags`] must be 0 where the protocol is not TCP.
#[inline(always)]
pub fn quick_step(flow: &FlowValue, arrival: &Arrival) -> Option<u32> {
    let flags = flow.flags;
    // Differences and masks, added up without a comparison: one that the verifier can decide would split its path.
    if flow.revision ^ arrival.revision | flags & (flow_flags::CLOSED | flow_flags::REWRITE) != 0 {
        return None;
    }
    // Bit 2 of the flags and bit 3 of the flags: both ends have finished.
    if flags >> 2 & flags >> 3 & 1 != 0 {
        return None;
    }
    if arrival.now.wrapping_sub(flow.seen).cast_signed() > QUICK_LIMIT {
        return None;
    }
    let tcp = u32::from(arrival.tcp_flags);
    // RST, or SYN (bit 1) without ACK (bit 4).
    if tcp & u32::from(tcp_flags::RST) | (tcp >> 1 & !(tcp >> 4) & 1) != 0 {
        return None;
    }
    let by_peer = flags & flow_flags::OPENED_BY_HIGH ^ u32::from(!arrival.from_low);
    let finished = tcp & u32::from(tcp_flags::FIN);
    Some(flags | by_peer << 1 | finished << (2 + by_peer))
}

/// The shortest life that an entry can have which is not closed.
const QUICK_LIMIT: i32 = {
    assert!(idle_seconds::TCP_OPENING <= idle_seconds::TCP_ESTABLISHED);
    assert!(idle_seconds::TCP_OPENING <= idle_seconds::OTHER_ANSWERED);
    assert!(idle_seconds::TCP_OPENING <= idle_seconds::OTHER_UNANSWERED);
    idle_seconds::TCP_OPENING.cast_signed()
};

// What `quick_step` shifts by.
const _: () = assert!(flow_flags::OPENED_BY_HIGH == 1 && tcp_flags::FIN == 1);
const _: () = assert!(tcp_flags::SYN == 1 << 1 && tcp_flags::ACK == 1 << 4);
const _: () = assert!(flow_flags::ANSWERED == 1 << 1);
const _: () = assert!(flow_flags::OPENER_FINISHED == 1 << 2 && flow_flags::PEER_FINISHED == 1 << 3);

/// Whether so much time has passed since the last packet that the entry counts as absent. `now` in units of the
/// programs' clock.
#[inline(always)]
pub fn is_idle(flow: &FlowValue, protocol: u8, now: u32) -> bool {
    // Signed: another CPU may have read a clock that is one unit ahead.
    now.wrapping_sub(flow.seen).cast_signed() > idle_limit(flow.flags, protocol).cast_signed()
}

/// In seconds, and in units of the programs' clock, which are about as long.
#[inline(always)]
pub fn idle_limit(flags: u32, protocol: u8) -> u32 {
    let answered = flags & flow_flags::ANSWERED != 0;
    if protocol == protocol::TCP {
        if flags & flow_flags::CLOSED != 0 {
            idle_seconds::TCP_CLOSED
        } else if answered {
            idle_seconds::TCP_ESTABLISHED
        } else {
            idle_seconds::TCP_OPENING
        }
    } else if answered {
        idle_seconds::OTHER_ANSWERED
    } else {
        idle_seconds::OTHER_UNANSWERED
    }
}

/// Whether an end with this hop is a pod of this node.
#[inline(always)]
pub const fn is_local(ifindex: u32) -> bool {
    ifindex != TO_STACK
}
