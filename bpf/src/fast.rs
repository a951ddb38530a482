//! The established packet: fixed offsets, one look-up, out. Anything unusual is left to [`crate::slow`], which
//! parses fully and comes to the same answer.

use aya_ebpf::programs::TcContext;
use weir_abi::address::Address;
use weir_abi::flow::FlowValue;
use weir_abi::reason::Reason;
use weir_datapath::flow::{self, Arrival, is_local};
use weir_datapath::packet::{ETHERNET, protocol};

use crate::exit::Verdict;
use crate::skb::Skb;
use crate::{clock, lookup, maps};

const ETHERTYPE: usize = 12;
const NETWORK: usize = ETHERNET as usize;
const IPV4_LENGTH: usize = 20;
const IPV6_LENGTH: usize = 40;
const TCP_FLAGS: usize = 13;

/// The verdict on a packet whose flow is established; `None` leaves it to the slow path.
#[inline(always)]
pub fn established(ctx: &TcContext) -> Option<Verdict> {
    let data = ctx.data();
    if data + NETWORK + IPV4_LENGTH + 4 > ctx.data_end() {
        return None;
    }
    // SAFETY: the bounds were just checked. The network header is 4-aligned, as the kernel aligns it (NET_IP_ALIGN).
    match u16::from_be(unsafe { at(data + ETHERTYPE) }) {
        0x0800 => ipv4(ctx, data),
        0x86dd => ipv6(ctx, data),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(ctx: &TcContext, data: usize) -> Option<Verdict> {
    // SAFETY: bounds checked by `established`.
    let (version, fragment, proto, source, destination): (u8, u16, u8, u32, u32) = unsafe {
        (
            at(data + NETWORK),
            at(data + NETWORK + 6),
            at(data + NETWORK + 9),
            at(data + NETWORK + 12),
            at(data + NETWORK + 16),
        )
    };
    // No options; neither "more fragments" nor an offset.
    if version != 0x45 || fragment & 0x3fff_u16.to_be() != 0 {
        return None;
    }
    let transport = data + NETWORK + IPV4_LENGTH;
    let flags = tcp_flags(ctx, transport, proto)?;
    // SAFETY: bounds checked by `established`.
    let (source_port, destination_port): (u16, u16) = unsafe { (at(transport), at(transport + 2)) };
    let (key, from_low) = flow::key4((source, source_port), (destination, destination_port), proto);
    let value = maps::FLOWS4.get_ptr_mut(&key)?;
    known(ctx, value, from_low, proto, flags)
}

#[inline(always)]
fn ipv6(ctx: &TcContext, data: usize) -> Option<Verdict> {
    let transport = data + NETWORK + IPV6_LENGTH;
    if transport + 4 > ctx.data_end() {
        return None;
    }
    // SAFETY: bounds just checked.
    let (proto, source, destination): (u8, Address, Address) = unsafe {
        (
            at(data + NETWORK + 6),
            address(data + NETWORK + 8),
            address(data + NETWORK + 24),
        )
    };
    let flags = tcp_flags(ctx, transport, proto)?;
    // SAFETY: bounds checked above.
    let (source_port, destination_port): (u16, u16) = unsafe { (at(transport), at(transport + 2)) };
    let (key, from_low) = flow::key6((&source, source_port), (&destination, destination_port), proto);
    let value = maps::FLOWS6.get_ptr_mut(&key)?;
    known(ctx, value, from_low, proto, flags)
}

/// The TCP flags, 0 for UDP; `None` for every other protocol.
#[inline(always)]
fn tcp_flags(ctx: &TcContext, transport: usize, proto: u8) -> Option<u8> {
    match proto {
        protocol::UDP => Some(0),
        protocol::TCP if transport + TCP_FLAGS < ctx.data_end() => {
            // SAFETY: bounds just checked.
            Some(unsafe { at(transport + TCP_FLAGS) })
        }
        _ => None,
    }
}

#[inline(always)]
fn known(ctx: &TcContext, value: *mut FlowValue, from_low: u32, proto: u8, tcp_flags: u8) -> Option<Verdict> {
    let skb = Skb::of(ctx);
    // SAFETY: a value of a preallocated map stays readable and writable while the program runs.
    let value = unsafe { &mut *value };
    let arrival = Arrival {
        from_low: from_low != 0,
        protocol: proto,
        tcp_flags,
        now: clock::now(),
        revision: lookup::control()?.revision,
    };
    let flags = flow::quick_step(value, &arrival)?;
    let (sender, receiver) = if from_low != 0 {
        (&value.hops[0], &value.hops[1])
    } else {
        (&value.hops[1], &value.hops[0])
    };
    if sender.ifindex != skb.sender() {
        return None;
    }
    let hop = receiver.ifindex & skb.hop_mask();
    if is_local(hop) && !skb.set_macs(receiver) {
        return None;
    }
    // Written only when they change, so that two CPUs on one flow don't fight for the cache line.
    if value.seen ^ arrival.now | value.flags ^ flags != 0 {
        value.seen = arrival.now;
        value.flags = flags;
    }
    Some(Verdict::to(hop, Reason::Established))
}

/// # Safety
///
/// The `T` at `address` must lie in the packet's linear part.
#[inline(always)]
unsafe fn at<T: Copy>(address: usize) -> T {
    // An ordinary load: BPF has no misaligned-load trap on the architectures that Weir runs on, and an unaligned
    // read would be taken apart into bytes.
    unsafe { *(address as *const T) }
}

/// # Safety
///
/// As [`at`]. IPv6 addresses are 4-aligned only, so they are read in words.
#[inline(always)]
unsafe fn address(from: usize) -> Address {
    unsafe { Address([at(from), at(from + 4), at(from + 8), at(from + 12)]) }
}
