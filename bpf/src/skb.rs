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
use crate::subprogram;

/// Places in the control block.
const HOOK: usize = 0;
const SENDER: usize = 1;
const HOP_MASK: usize = 2;

/// A pointer to the context: what subprograms can be handed.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    /// Leaves what the hook implies to the programs that it jumps to, in the part of the control block that is for
    /// programs.
    #[inline(always)]
    pub fn set_hook(self, hook: Hook) {
        self.set_control(HOOK, hook as u32);
        self.set_control(SENDER, hook.sender(self.ifindex()));
        self.set_control(HOP_MASK, hook.hop_mask());
    }

    #[inline(always)]
    pub fn hook(self) -> Hook {
        Hook::from_number(self.control(HOOK))
    }

    /// See [`Hook::sender`].
    #[inline(always)]
    pub fn sender(self) -> u32 {
        self.control(SENDER)
    }

    /// See [`Hook::hop_mask`].
    #[inline(always)]
    pub fn hop_mask(self) -> u32 {
        self.control(HOP_MASK)
    }

    #[inline(always)]
    fn control(self, index: usize) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (&raw const (*self.0).cb[index]).read_volatile() }
    }

    #[inline(always)]
    fn set_control(self, index: usize, value: u32) {
        // SAFETY: as above. Volatile: neighbouring stores must not become one ("invalid bpf_context access").
        unsafe { (&raw mut (*self.0).cb[index]).write_volatile(value) };
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
            match bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) {
                0 => Some(value.assume_init()),
                _ => None,
            }
        }
    }

    #[inline(always)]
    fn read<'a, T: Plain>(&self, offset: u32, room: &'a mut MaybeUninit<T>) -> Option<&'a T> {
        // SAFETY: as above.
        unsafe {
            match bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                room.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) {
                0 => Some(room.assume_init_ref()),
                _ => None,
            }
        }
    }

    #[inline(always)]
    fn follow_extension_headers(&self, next_header: u64, offset: u64) -> u64 {
        subprogram::follow_extension_headers(*self, next_header, offset)
    }
}
