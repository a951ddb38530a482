//! The boot clock.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use crate::config;

/// Nanoseconds of `CLOCK_MONOTONIC`, as of the last timer tick where the kernel has the coarse clock (5.11,
/// d05512618056): 2 ns to read instead of 22.
#[inline(always)]
pub fn nanoseconds() -> u64 {
    // SAFETY: helpers without arguments.
    unsafe { if config::coarse_clock() { bpf_ktime_get_coarse_ns() } else { bpf_ktime_get_ns() } }
}

/// In units of 2^30 ns, the unit of every age in the flow table.
#[inline(always)]
pub fn now() -> u32 {
    (nanoseconds() >> 30) as u32
}
