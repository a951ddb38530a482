//! The one way out of a tc hook: every packet leaves with a reason, which is counted, and an action.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::bpf_redirect_peer;
use weir_abi::reason::Reason;

use crate::maps::COUNTERS;

/// How a packet leaves: `ifindex << 8 | reason`, one register.
#[must_use]
#[derive(Clone, Copy)]
pub struct Verdict(u64);

impl Verdict {
    /// On through this hook, to the node's network stack or to the pod.
    #[inline(always)]
    pub fn pass(reason: Reason) -> Self {
        Self(reason as u64)
    }

    /// Out by `hop`, an `ifindex` as in [`weir_abi::flow::Hop`].
    #[inline(always)]
    pub fn to(hop: u32, reason: Reason) -> Self {
        Self((hop as u64) << 8 | reason as u64)
    }

    #[inline(always)]
    pub fn drop(reason: Reason) -> Self {
        Self(reason as u64)
    }
}

/// Counts the reason and performs the verdict.
#[inline(always)]
pub fn leave(verdict: Verdict) -> i32 {
    let number = verdict.0 as u8;
    if let Some(counter) = COUNTERS.get_ptr_mut(number as u32) {
        // SAFETY: the slot is this CPU's.
        unsafe { *counter += 1 };
    }
    if number >= Reason::FIRST_DROP {
        return TC_ACT_SHOT;
    }
    let hop = (verdict.0 >> 8) as u32;
    if hop == 0 {
        return TC_ACT_OK;
    }
    // SAFETY: the helper only marks the packet; the kernel redirects it after the program has returned.
    unsafe { bpf_redirect_peer(hop, 0) as i32 }
}
