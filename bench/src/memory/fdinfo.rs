//! One map as `/proc/self/fdinfo` shows it.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use aya::maps::{MapInfo, MapType};

/// `BPF_F_NO_PREALLOC` (`include/uapi/linux/bpf.h`).
const NO_PREALLOC: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MapOnRecord {
    pub(super) kind: MapType,
    pub(super) preallocated: bool,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) capacity: u32,
    /// From 6.4 on what the map really holds (90a5527d7686), before that what it could hold.
    pub(super) bytes: u64,
}

pub(super) fn map(id: u32) -> Result<MapOnRecord> {
    let info = MapInfo::from_id(id)?;
    let descriptor = info.fd()?;
    let file = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    Ok(MapOnRecord {
        kind: info.map_type()?,
        preallocated: info.map_flags() & NO_PREALLOC == 0,
        key_size: info.key_size(),
        value_size: info.value_size(),
        capacity: info.max_entries(),
        bytes: field(&text, "memlock").with_context(|| format!("{file}: no memlock"))?,
    })
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// Bytes that an element of a hash takes beyond those on record: `bpf_mem_alloc` (6.1) puts a list node in front and
/// asks `kmalloc`, which has a few sizes only.
pub(super) fn rounding(key_size: u32, value_size: u32) -> u64 {
    let element = u64::from(ELEMENT + key_size.next_multiple_of(8) + value_size.next_multiple_of(8));
    kmalloc_size(element + LIST_NODE) - element
}

/// `struct htab_elem` without its key.
const ELEMENT: u32 = 48;
const LIST_NODE: u64 = 8;

fn kmalloc_size(bytes: u64) -> u64 {
    match bytes {
        65..=96 => 96,
        129..=192 => 192,
        _ => bytes.next_power_of_two().max(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "pos:\t0\nmemlock_other:\t1\nmemlock:\t4096\nfrozen:\t0\n";
        assert_eq!(field(text, "memlock"), Some(4096));
        assert_eq!(field(text, "mem"), None);
    }

    #[test]
    fn an_element_takes_the_next_size() {
        // 48 + 16 + 8, with the node 80, of 96.
        assert_eq!(rounding(16, 8), 24);
        // 48 + 8 + 56, with the node 120, of 128.
        assert_eq!(rounding(8, 56), 16);
        // 48 + 24 + 16, with the node 96, of 96.
        assert_eq!(rounding(24, 16), 8);
        assert_eq!(
            [1, 64, 65, 97, 129, 193].map(kmalloc_size),
            [8, 64, 96, 128, 192, 256]
        );
    }
}
