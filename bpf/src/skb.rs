//! The packet as the kernel hands it over.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use weir_abi::flow::Hop;
use weir_abi::plain::Plain;
use weir_datapath::bytes::Bytes;

use crate::hook::Hook;

/// A pointer to the context: what subprograms can be handed.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    /// Leaves the hook to the programs that it jumps to, in the part of the control block that is for programs.
    #[inline(always)]
    pub fn set_hook(self, hook: Hook) {
        // SAFETY: the context is valid while the program runs.
        unsafe { (&raw mut (*self.0).cb[0]).write_volatile(hook as u32) };
    }

    #[inline(always)]
    pub fn hook(self) -> Hook {
        // SAFETY: as above.
        Hook::from_number(unsafe { (&raw const (*self.0).cb[0]).read_volatile() })
    }

    /// The interface on whose hook the program runs.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0).ifindex }
    }
}

impl Skb {
    /// Writes the Ethernet addresses of a hop into a packet whose Ethernet header is in the linear part; false where it
    /// isn't.
    #[inline(always)]
    pub fn set_macs(self, hop: &Hop) -> bool {
        // SAFETY: the context is valid while the program runs; the bounds are checked before the header is written.
        // The header is 2-aligned only: BPF has no misaligned-store trap on the architectures that Weir runs on.
        // The two addresses of a hop stand one behind the other, as in the packet.
        unsafe {
            let hop: &[u32; 4] = &*(hop as *const Hop).cast();
            let (data, end) = ((*self.0).data as usize, (*self.0).data_end as usize);
            if data + 12 > end {
                return false;
            }
            *(data as *mut u32) = hop[1];
            *((data + 4) as *mut u32) = hop[2];
            *((data + 8) as *mut u32) = hop[3];
        }
        true
    }
}

/// Copies through the helper, so that headers outside the linear part are read as well.
impl Bytes for Skb {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` has room for the bytes asked for; on success all are written, and any are a valid `Plain`.
        unsafe {
            match bpf_skb_load_bytes(self.0.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) {
                0 => Some(value.assume_init()),
                _ => None,
            }
        }
    }
}
