//! Plain values as the bytes that the kernel copies, and back.
#![expect(unsafe_code, reason = "looking at a plain value as bytes")]

use std::io;
use std::slice;

use weir_abi::plain::Plain;

pub(super) fn as_bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types are nothing but initialised bytes, and the slice spans exactly these.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The value whose bytes these are. The length must be that of the type.
pub(super) fn from_bytes<T: Plain>(bytes: &[u8]) -> io::Result<T> {
    if bytes.len() != size_of::<T>() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} bytes where {} has {}",
                bytes.len(),
                std::any::type_name::<T>(),
                size_of::<T>()
            ),
        ));
    }
    // SAFETY: as many bytes as `T` has, and of a `Plain` type every bit pattern is a value.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_and_a_wrong_length_is_refused() {
        let values = [0x0102_0304_u32, 7];
        let bytes = as_bytes(&values);
        assert_eq!(bytes.len(), 8);
        assert_eq!(from_bytes::<u32>(&bytes[4..]).ok(), Some(7));
        assert!(from_bytes::<u32>(&bytes[1..]).is_err());
    }
}
