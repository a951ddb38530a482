//! Where a packet's bytes come from.

use weir_abi::plain::Plain;

/// A packet, from its Ethernet header on.
pub trait Bytes {
    /// Copies the `T` at `offset`; `None` where the packet ends before it does. Any `offset` is allowed.
    fn load<T: Plain>(&self, offset: u32) -> Option<T>;
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
