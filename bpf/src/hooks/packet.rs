//! The tc hooks. They differ in where a packet can have come from and where it goes on to, not in what is asked.

use aya_ebpf::programs::TcContext;
use weir_abi::reason::Reason;

use crate::exit::{self, Verdict};
use crate::hook::Hook;
use crate::skb::Skb;
use crate::slow::decide;
use crate::{lookup, maps};

/// The established packet is decided here; any other by the `slow` program, which all hooks share, so that the
/// verifier looks at it once.
#[inline(always)]
pub fn fast(ctx: &TcContext, hook: Hook) -> i32 {
    if let Some(verdict) = crate::fast::established(ctx, hook) {
        return exit::leave(verdict);
    }
    if let Some(s) = lookup::scratch() {
        s.hook = hook as u32;
        // SAFETY: the context is this program's own. On success the call does not return.
        let _ = unsafe { maps::JUMP.tail_call(ctx, 0) };
    }
    exit::leave(Verdict::drop(Reason::Internal))
}

/// The program that [`fast`] jumps to. It runs on the same CPU, so it finds the hook in the scratch.
#[inline(always)]
pub fn slow(ctx: &TcContext) -> i32 {
    let Some(s) = lookup::scratch() else { return exit::leave(Verdict::drop(Reason::Internal)) };
    exit::leave(decide(Skb::of(ctx), Hook::from_number(s.hook)))
}
