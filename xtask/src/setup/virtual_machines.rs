//! What `cargo xtask vmtest` emulates machines with, and makes their contents with.

use anyhow::{Result, bail};

use super::apt::Apt;

/// Programs, and the package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("cpio", "cpio"),
    ("ldd", "libc-bin"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
    ("tc", "iproute2"),
    ("xz", "xz-utils"),
];

/// Installs what is missing. Kernels are Debian's, which takes apt.
pub(crate) fn run() -> Result<()> {
    if !Apt::is_here() {
        bail!("the kernels to test on are Debian's packages, and there is no apt-get here");
    }
    super::packages(&mut Apt::default(), PROGRAMS)
}
