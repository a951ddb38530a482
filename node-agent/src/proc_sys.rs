//! `/proc/sys` in an agent's own pod.
//!
//! Container runtimes mount it read-only in a pod that is not privileged. The agent sets what it must of the node's
//! network and of the pods' in a mount namespace of its own, so that only its own view changes. It takes
//! `CAP_SYS_ADMIN`, which entering the pods' network namespaces takes too.

use std::io;

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

const PROC_SYS: &str = "/proc/sys";

/// Makes `/proc/sys` writable where it is not.
///
/// # Errors
///
/// If the kernel refuses.
pub fn make_writable() -> io::Result<()> {
    if !statvfs(PROC_SYS)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, PROC_SYS, None::<&str>, flags, None::<&str>)?;
    Ok(())
}
