//! Constants that the loader sets before load; the verifier prunes by them. Names: `weir_abi::config::global`.

use core::ptr::read_volatile;

#[unsafe(no_mangle)]
static CLOCK_SHIFT: u32 = 8;

#[inline(always)]
pub fn clock_shift() -> u32 {
    // SAFETY: a static of ours. Volatile, because the compiler must not fold what the loader sets.
    unsafe { read_volatile(&raw const CLOCK_SHIFT) & 63 }
}

#[unsafe(no_mangle)]
static NODE_NETNS: u64 = 0;

#[inline(always)]
pub fn node_netns() -> u64 {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const NODE_NETNS) }
}
