//! Where a packet's bytes come from.

use core::mem::MaybeUninit;

use weir_abi::plain::Plain;

use crate::parse;

/// A packet, from its Ethernet header on.
pub trait Bytes {
    /// Copies the `T` at `offset`; `None` where the packet ends before it does. Any `offset` is allowed.
    fn load<T: Plain>(&self, offset: u32) -> Option<T>;

    /// As [`load`](Self::load), into `room`. Worth overriding where the bytes come by a call that fills memory: a
    /// header returned by value is copied once more, in BPF word by word.
    #[inline(always)]
    fn read<'a, T: Plain>(&self, offset: u32, room: &'a mut MaybeUninit<T>) -> Option<&'a T> {
        Some(room.write(self.load(offset)?))
    }

    /// [`parse::follow_extension_headers`]. Worth overriding where that can be a global function (`extern "C"`,
    /// `no_mangle`), which nothing generic can be: the verifier checks such a function once, and not at each call.
    #[inline(always)]
    fn follow_extension_headers(&self, next_header: u64, offset: u64) -> u64 {
        parse::follow_extension_headers(self, next_header, offset)
    }
}

/// A packet in ordinary memory.
impl Bytes for [u8] {
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.get(start..start.checked_add(size_of::<T>())?)?;
        // SAFETY: `bytes` has exactly the size of `T`, and any bytes are a valid `Plain`.
        #[expect(unsafe_code, reason = "reads a value out of bytes")]
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}
