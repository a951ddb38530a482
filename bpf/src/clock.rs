//! The clock by which flows age.

use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::config;

/// In units of about a second. The kernel's tick counter: the verifier puts a load in place of the call (5.6,
/// 5576b991e9c1), where even the coarse clock costs a call.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_jiffies64() } >> config::clock_shift()) as u32
}
