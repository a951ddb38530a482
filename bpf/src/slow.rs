//! Everything that [`crate::fast`] leaves: new connections, changed policy, fragments, ICMP, options, translation.
//!
//! The path is cut into stages, global functions each ([`crate::subprogram`]), that hand on what they know in the
//! scratch: the verifier's work is then the sum of the stages and not their product.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::bpf_skb_store_bytes;
use weir_abi::address::Address;
use weir_abi::flow::{Hop, flow_flags};
use weir_abi::reason::Reason;
use weir_abi::workload::Workload;
use weir_datapath::flow::{self, Arrival, Step, is_local};
use weir_datapath::judge::Connection;
use weir_datapath::packet::{shape, tcp_flags};
use weir_datapath::service::{self, Destination};

use crate::exit::Verdict;
use crate::hook::Hook;
use crate::lookup::{self, Kernel};
use crate::scratch::{Scratch, translated};
use crate::skb::Skb;
use crate::{clock, fragment, rewrite, subprogram};

/// The verdict on any packet.
#[inline(always)]
pub fn decide(skb: Skb, hook: Hook) -> Verdict {
    let parsed = subprogram::parse(skb);
    let Some(s) = lookup::scratch() else {
        return Verdict::drop(Reason::Internal);
    };
    match parsed {
        // The uplink also carries what is not for pods; the node's own network stack judges that.
        Err(_) if hook == Hook::FromWire => Verdict::pass(Reason::NotForPod),
        Err(reason) => Verdict::drop(reason),
        Ok(()) => by_shape(skb, hook, s),
    }
}

#[inline(always)]
fn by_shape(skb: Skb, hook: Hook, s: &mut Scratch) -> Verdict {
    if s.packet.shape == shape::ARP || s.packet.shape == shape::NEIGHBOUR_DISCOVERY {
        return Verdict::pass(match hook {
            Hook::FromWire => Reason::NotForPod,
            Hook::FromPod | Hook::ToPod => Reason::LinkControl,
        });
    }
    subprogram::set_connection();
    if let Some(verdict) = check_ends(skb, hook, s) {
        return verdict;
    }
    let reason = if s.packet.shape == shape::ICMP_ERROR {
        match subprogram::icmp_error(skb) {
            // About what the node itself has sent.
            _ if hook == Hook::FromWire && !is_local(s.hop.ifindex) => Reason::NotForPod,
            reason => reason,
        }
    } else {
        by_flow(skb, hook, s)
    };
    if !reason.is_forward() {
        return Verdict::drop(reason);
    }
    deliver(skb, hook, &s.hop, reason)
}

/// The connection as the packet's sender opens it.
#[inline(always)]
pub fn set_connection(s: &mut Scratch) {
    s.connection.source = s.packet.source;
    s.connection.destination = s.packet.destination;
    s.connection.source_port = s.packet.source_port;
    s.connection.destination_port = s.packet.destination_port;
    s.connection.protocol = s.packet.protocol;
    s.translated = 0;
    subprogram::find_pods();
}

/// Who of this node's pods the connection's ends are.
#[inline(always)]
pub fn find_pods(s: &mut Scratch) {
    s.connection.source_pod = lookup::pod(&s.connection.source);
    s.connection.destination_pod = lookup::pod(&s.connection.destination);
}

/// A pod sends from its own addresses only, and nobody else sends from them; what is not for a pod of ours is none
/// of our business, except that nothing reaches a pod which is not known yet.
#[inline(always)]
fn check_ends(skb: Skb, hook: Hook, s: &Scratch) -> Option<Verdict> {
    let c = &s.connection;
    match hook {
        Hook::FromPod => {
            if is_multicast(&c.destination, s.packet.family) {
                return Some(Verdict::drop(Reason::Multicast));
            }
            return if c.source_pod.ifindex == skb.ifindex() {
                None
            } else {
                Some(Verdict::drop(Reason::SourceNotOwn))
            };
        }
        Hook::ToPod => {
            if c.destination_pod.ifindex != skb.ifindex() {
                return Some(Verdict::drop(Reason::PodClosed));
            }
        }
        Hook::FromWire => {
            if !c.is_to_pod() {
                // It may still be for a pod that speaks, or is spoken to, by an address of the node's. Not if it
                // pretends to come from a pod of this node.
                return c.is_from_pod().then_some(Verdict::pass(Reason::NotForPod));
            }
        }
    }
    if c.is_from_pod() {
        Some(Verdict::drop(Reason::SourceNotOwn))
    } else {
        None
    }
}

/// RFC 1112, RFC 919 and RFC 4291, section 2.7.
#[inline(always)]
fn is_multicast(address: &Address, family: u8) -> bool {
    if family == 4 {
        address.v4() & 0xf000_0000_u32.to_be() == 0xe000_0000_u32.to_be() || address.v4() == u32::MAX
    } else {
        address.0[0] & 0xff00_0000_u32.to_be() == 0xff00_0000_u32.to_be()
    }
}

#[inline(always)]
fn by_flow(skb: Skb, hook: Hook, s: &Scratch) -> Reason {
    match subprogram::find() {
        Ok(Step::Forward | Step::Close) => subprogram::known(skb),
        Ok(Step::Rejudge) => {
            let reason = subprogram::rejudge();
            if reason.is_forward() {
                subprogram::known(skb)
            } else {
                reason
            }
        }
        Ok(Step::Open) => {
            let reason = subprogram::open(hook);
            match reason {
                // The node speaks to its pods from within.
                Reason::LocalNode if hook == Hook::FromWire => Reason::SourceNotOwn,
                // Without an entry: always allowed, and nothing to translate on the way back.
                Reason::LocalNode if s.translated == 0 => reason,
                Reason::NotForPod => reason,
                _ if reason.is_forward() => subprogram::admit(skb, reason),
                _ => reason,
            }
        }
        Err(Reason::FragmentUnknown) if !s.connection.is_from_pod() && !s.connection.is_to_pod() => {
            Reason::NotForPod
        }
        Err(reason) => reason,
    }
}

/// Meets the packet with its flow entry, after fragments have been given their ports.
#[inline(always)]
pub fn find(s: &mut Scratch) -> Result<Step, Reason> {
    match s.packet.shape {
        shape::FIRST_FRAGMENT => fragment::remember(s),
        shape::LATER_FRAGMENT => {
            if !fragment::recall(s) {
                return Err(Reason::FragmentUnknown);
            }
            s.connection.source_port = s.packet.source_port;
            s.connection.destination_port = s.packet.destination_port;
            s.connection.protocol = s.packet.protocol;
        }
        _ => {}
    }
    let Some(control) = lookup::control() else {
        return Err(Reason::Internal);
    };
    s.arrival = Arrival {
        from_low: subprogram::key(),
        protocol: s.packet.protocol,
        tcp_flags: s.packet.detail,
        now: clock::now(),
        revision: control.revision,
    };
    if !subprogram::load_flow() {
        return Ok(Step::Open);
    }
    let (step, flags) = flow::step(&s.value, &s.arrival);
    s.flags = flags;
    Ok(step)
}

/// Writes the key of the scratch's connection; 1 where its source is the low end.
#[inline(always)]
pub fn key(s: &mut Scratch) -> u32 {
    let c = &s.connection;
    if s.packet.family == 4 {
        let source = (c.source.v4(), c.source_port);
        let (key, from_low) = flow::key4(source, (c.destination.v4(), c.destination_port), c.protocol);
        s.key4 = key;
        from_low
    } else {
        let source = (&c.source, c.source_port);
        let (key, from_low) = flow::key6(source, (&c.destination, c.destination_port), c.protocol);
        s.key6 = key;
        from_low
    }
}

/// Whether the end that opened the connection sent the packet.
#[inline(always)]
fn is_from_opener(s: &Scratch) -> bool {
    (s.flags & flow_flags::OPENED_BY_HIGH == 0) == s.arrival.from_low
}

/// The packet belongs to the flow that stands in the scratch.
#[inline(always)]
pub fn known(skb: Skb, s: &mut Scratch) -> Reason {
    let changed = s.value.seen != s.arrival.now || s.value.flags != s.flags;
    s.value.seen = s.arrival.now;
    s.value.flags = s.flags;
    // No index: the verifier does not know that a `bool` in memory is 0 or 1.
    s.hop = if s.arrival.from_low {
        s.value.hops[1]
    } else {
        s.value.hops[0]
    };
    if s.flags & flow_flags::CLOSED != 0 {
        subprogram::remove_flow();
    } else {
        subprogram::store_flow();
    }
    if s.flags & flow_flags::REWRITE != 0 {
        return rewrite::known(skb, s, is_from_opener(s), changed);
    }
    Reason::Established
}

/// Sends the packet to `hop`.
#[inline(always)]
fn deliver(skb: Skb, hook: Hook, hop: &Hop, reason: Reason) -> Verdict {
    if hook == Hook::ToPod {
        return Verdict::pass(reason);
    }
    if is_local(hop.ifindex) {
        // SAFETY: the two addresses of the hop are the twelve bytes that an Ethernet header starts with.
        let stored =
            unsafe { bpf_skb_store_bytes(skb.0.cast(), 0, (&raw const hop.destination_mac).cast(), 12, 0) };
        if stored != 0 {
            return Verdict::drop(Reason::RewriteFailed);
        }
    }
    Verdict::to(hop.ifindex, reason)
}

/// The connection was judged before a change of policy. What holds is what policy says of it, seen from the end that
/// opened it. An entry that is denied stays as it is: the connection resumes if policy lets it.
#[inline(always)]
pub fn rejudge(s: &mut Scratch) -> Reason {
    if !is_from_opener(s) {
        turn(&mut s.connection);
        if s.flags & flow_flags::REWRITE_TO_OPENER != 0 {
            s.connection.source = s.value.rewrite_destination;
            s.connection.source_port = s.value.rewrite_destination_port;
            subprogram::find_pods();
        }
    } else if s.flags & flow_flags::REWRITE_FROM_OPENER != 0 {
        let (address, port) = (s.value.rewrite_destination, s.value.rewrite_destination_port);
        if address != s.packet.destination
            || port != s.packet.destination_port && rewrite::has_port(s.packet.protocol)
        {
            translate(s, &address, port);
        }
    }
    let reason = subprogram::judge();
    if !reason.is_forward() {
        subprogram::denied(reason);
        return reason;
    }
    subprogram::set_decision(s.flags);
    reason
}

/// The same connection as its other end would have opened it.
#[inline(always)]
pub fn turn(connection: &mut Connection) {
    core::mem::swap(&mut connection.source, &mut connection.destination);
    core::mem::swap(&mut connection.source_port, &mut connection.destination_port);
    core::mem::swap(&mut connection.source_pod, &mut connection.destination_pod);
}

#[inline(always)]
pub fn translate(s: &mut Scratch, backend: &Address, port: u16) {
    s.connection.destination = *backend;
    s.connection.destination_port = port;
    subprogram::find_pods();
    s.translated = translated::DESTINATION;
}

/// Writes what was judged into the copy of the flow entry.
#[inline(always)]
pub fn set_decision(s: &mut Scratch, flags: u32) {
    s.value.revision = s.arrival.revision;
    s.value.egress_rule = s.judgement.egress.rule;
    s.value.ingress_rule = s.judgement.ingress.rule;
    let [low, high] = &mut s.value.hops;
    let (opener, peer) = if flags & flow_flags::OPENED_BY_HIGH == 0 {
        (low, high)
    } else {
        (high, low)
    };
    set_hop(opener, &s.connection.source_pod);
    set_hop(peer, &s.connection.destination_pod);
}

/// An end that is no pod of this node has ifindex 0, which is [`TO_STACK`](weir_abi::flow::TO_STACK).
#[inline(always)]
pub fn set_hop(hop: &mut Hop, pod: &Workload) {
    hop.ifindex = pod.ifindex;
    hop.destination_mac = pod.pod_mac;
    hop.source_mac = pod.host_mac;
}

/// No valid entry: Service, then policy, then the outside.
#[inline(always)]
pub fn open(s: &mut Scratch, hook: Hook) -> Reason {
    if hook == Hook::FromPod || !s.connection.is_to_pod() {
        // SAFETY: a helper without arguments.
        let choice = unsafe { bpf_get_prandom_u32() };
        let c = &s.connection;
        match service::resolve(&Kernel, &c.destination, c.destination_port, c.protocol, choice) {
            Destination::Plain => {}
            Destination::NoBackend => return Reason::NoBackend,
            Destination::Backend(backend) => {
                if backend.port != c.destination_port && !rewrite::has_port(c.protocol) {
                    return Reason::RewriteFailed;
                }
                translate(s, &backend.address, backend.port);
            }
        }
    }
    let reason = subprogram::judge();
    set_hop(&mut s.hop, &s.connection.destination_pod);
    if !reason.is_forward() {
        subprogram::denied(reason);
    } else if hook == Hook::FromPod && !is_local(s.hop.ifindex) && reason != Reason::LocalNode {
        subprogram::choose_masquerade();
    }
    reason
}

/// Policy allows it: remember the connection. `reason` comes back, or the one for which that was impossible.
#[inline(always)]
pub fn admit(skb: Skb, s: &mut Scratch, reason: Reason) -> Reason {
    let flags = if s.arrival.from_low {
        0
    } else {
        flow_flags::OPENED_BY_HIGH
    };
    // Seen in the middle. Its life is short until the other end has said something: it may be the last packet of a
    // connection that had no entry, or has none any more.
    let picked_up = s.arrival.is_tcp() && s.arrival.tcp_flags & tcp_flags::SYN == 0;
    if s.translated != 0 {
        if let Some(refused) = subprogram::remember(flags) {
            return refused;
        }
        if !subprogram::replace_ends(skb) {
            return Reason::RewriteFailed;
        }
    } else if !s.arrival.ends() {
        fill_value(s, flags);
        // Without an entry the next packet is judged like this one.
        let _ = subprogram::insert_flow();
    }
    if !picked_up {
        subprogram::allowed(reason);
    }
    reason
}

/// Fills the copy for the connection as it stands in the scratch.
#[inline(always)]
pub fn fill_value(s: &mut Scratch, flags: u32) {
    s.value.seen = s.arrival.now;
    s.value.flags = flags;
    s.value.rewrite_source = s.connection.source;
    s.value.rewrite_source_port = s.connection.source_port;
    s.value.rewrite_destination = s.connection.destination;
    s.value.rewrite_destination_port = s.connection.destination_port;
    subprogram::set_decision(flags);
}
