//! Tells a program that runs alone from one that needs a loader and libraries.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Of a program header that names the loader (`PT_INTERP`, System V ABI, "Program Header").
const INTERPRETER: u32 = 3;

/// Fails when the file is no 64-bit little-endian ELF program, or one that an image from scratch could not run.
pub(crate) fn check_static(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    match has_interpreter(&bytes) {
        Some(false) => Ok(()),
        Some(true) => bail!("{} is not static: it needs a loader", path.display()),
        None => bail!("{} is no 64-bit little-endian ELF program", path.display()),
    }
}

/// Offsets are those of `Elf64_Ehdr` and `Elf64_Phdr`.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const MAGIC_CLASS_DATA: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    if !elf.starts_with(&MAGIC_CLASS_DATA) {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(field(elf, 0x20)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(field(elf, 0x36)?));
    let count = usize::from(u16::from_le_bytes(field(elf, 0x38)?));
    for index in 0..count {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if u32::from_le_bytes(field(elf, header)?) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

fn field<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..at.checked_add(LENGTH)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, and program headers of these types behind it.
    fn program(types: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        elf[0x20..0x28].copy_from_slice(&0x40u64.to_le_bytes());
        elf[0x36..0x38].copy_from_slice(&56u16.to_le_bytes());
        elf[0x38..0x3a].copy_from_slice(&u16::try_from(types.len()).expect("few").to_le_bytes());
        for kind in types {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    #[test]
    fn a_loader_is_found_wherever_it_stands() {
        assert_eq!(has_interpreter(&program(&[6, 1, 1])), Some(false));
        assert_eq!(has_interpreter(&program(&[6, 1, 3])), Some(true));
    }

    #[test]
    fn what_is_cut_off_is_no_program() {
        let whole = program(&[6, 1, 1]);
        assert_eq!(has_interpreter(&whole[..whole.len() - 56]), None);
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn the_tests_themselves_are_dynamic() {
        let this = std::env::current_exe().expect("a path");
        let expected = !cfg!(target_feature = "crt-static");
        assert_eq!(check_static(&this).is_err(), expected);
    }
}
