//! The packet as the kernel hands it over.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use weir_abi::plain::Plain;
use weir_datapath::bytes::Bytes;

/// A pointer to the context: what subprograms can be handed.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    /// The interface on whose hook the program runs.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0).ifindex }
    }
}

impl Skb {
    /// Writes the Ethernet addresses of a packet whose Ethernet header is in the linear part; false where it isn't.
    #[inline(always)]
    pub fn set_macs(self, destination: &[u8; 6], source: &[u8; 6]) -> bool {
        // SAFETY: the context is valid while the program runs; the bounds are checked before the header is written,
        // and both it and the addresses are 2-aligned.
        unsafe {
            let (data, end) = ((*self.0).data as usize, (*self.0).data_end as usize);
            if data + 12 > end {
                return false;
            }
            *(data as *mut [u16; 3]) = *(destination as *const [u8; 6]).cast();
            *((data + 6) as *mut [u16; 3]) = *(source as *const [u8; 6]).cast();
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
