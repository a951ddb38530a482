//! The smallest programs that do part of Weir's job, which the benchmarks compare it with, and one that makes every
//! run of a test packet the same.
#![no_std]
#![no_main]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::bpf_redirect_peer;
use aya_ebpf::helpers::generated::bpf_skb_store_bytes;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, HashMap, ProgramArray};
use aya_ebpf::programs::TcContext;
use weir_abi::address::Address;
use weir_abi::flow::Hop;

/// Where the pod with this IPv4 address is; network byte order.
#[map(name = "endpoints4")]
static ENDPOINTS4: HashMap<u32, Hop> = HashMap::with_max_entries(131_072, 0);
#[map(name = "endpoints6")]
static ENDPOINTS6: HashMap<Address, Hop> = HashMap::with_max_entries(131_072, 0);
#[map(name = "template")]
static TEMPLATE: Array<Template> = Array::with_max_entries(1, 0);
/// The one entry is the program that [`restore`] hands the packet to.
#[map(name = "next")]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

const ETHERNET: usize = 14;

/// The beginning of every packet that [`restore`] hands on.
#[repr(C)]
struct Template {
    bytes: [u8; TEMPLATE_BYTES],
    /// Where the source port of IPv4 and of IPv6 stands: 34 or 54. It then counts up from packet to packet. 0 leaves
    /// all as it is.
    port_offset: u32,
    /// The last source port, host byte order.
    port: u32,
}

/// Ethernet, IPv6 and TCP without options, and some more.
const TEMPLATE_BYTES: usize = 80;

/// Nothing: what running a program costs.
#[classifier]
pub fn empty(_: TcContext) -> i32 {
    TC_ACT_OK
}

/// From pod to pod: one look-up, two MAC addresses, `bpf_redirect_peer`. No policy, no connection, no count.
#[classifier]
pub fn peer4(ctx: TcContext) -> i32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET + 20 > end {
        return TC_ACT_OK;
    }
    // SAFETY: the bounds were just checked; the kernel aligns the network header to 4 (NET_IP_ALIGN).
    let (ether_type, destination) = unsafe {
        (
            *((data + 12) as *const u16),
            *((data + ETHERNET + 16) as *const u32),
        )
    };
    if ether_type != 0x0800_u16.to_be() {
        return TC_ACT_OK;
    }
    // SAFETY: endpoints are written before the program is attached, and never changed.
    unsafe { ENDPOINTS4.get(destination) }.map_or(TC_ACT_OK, |hop| deliver(data, hop))
}

#[classifier]
pub fn peer6(ctx: TcContext) -> i32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET + 40 > end {
        return TC_ACT_OK;
    }
    // SAFETY: the bounds were just checked; the kernel aligns the network header to 4 (NET_IP_ALIGN).
    let (ether_type, destination) = unsafe {
        (
            *((data + 12) as *const u16),
            *((data + ETHERNET + 24) as *const [u32; 4]),
        )
    };
    if ether_type != 0x86dd_u16.to_be() {
        return TC_ACT_OK;
    }
    // SAFETY: as in `peer4`.
    unsafe { ENDPOINTS6.get(Address(destination)) }.map_or(TC_ACT_OK, |hop| deliver(data, hop))
}

#[inline(always)]
fn deliver(data: usize, hop: &Hop) -> i32 {
    // SAFETY: the callers have checked that the packet is longer than this, and it is 2-aligned.
    unsafe {
        *(data as *mut [u16; 3]) = *(&raw const hop.destination_mac).cast();
        *((data + 6) as *mut [u16; 3]) = *(&raw const hop.source_mac).cast();
        bpf_redirect_peer(hop.ifindex, 0) as i32
    }
}

/// `BPF_PROG_TEST_RUN` runs a program on one packet again and again: whatever it changed, it finds changed. This one
/// puts the packet back, with another source port where every run is to open a connection, and jumps.
#[classifier]
pub fn restore(ctx: TcContext) -> i32 {
    let Some(template) = TEMPLATE.get_ptr_mut(0) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: nobody else uses the template while a test runs.
    let template = unsafe { &mut *template };
    if template.port_offset != 0 {
        template.port = template.port.wrapping_add(1);
        let port = (template.port as u16).to_be_bytes();
        let at = if template.port_offset == 34 { 34 } else { 54 };
        template.bytes[at] = port[0];
        template.bytes[at + 1] = port[1];
    }
    let skb = ctx.as_ptr().cast();
    // SAFETY: the helper checks that the packet is long enough.
    let stored =
        unsafe { bpf_skb_store_bytes(skb, 0, template.bytes.as_ptr().cast(), TEMPLATE_BYTES as u32, 0) };
    if stored == 0 {
        // SAFETY: the context is this program's own. On success the call does not return.
        unsafe { NEXT.tail_call(&ctx, 0) };
    }
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
