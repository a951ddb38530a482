//! The tc hooks. They differ in where a packet can have come from and where it goes on to, not in what is asked, so
//! they share the programs that answer: the verifier looks at each once, and the CPU caches one copy.

use aya_ebpf::programs::TcContext;
use weir_abi::reason::Reason;

use crate::exit::{self, Verdict};
use crate::fast::established;
use crate::hook::Hook;
use crate::maps;
use crate::skb::Skb;
use crate::slow::decide;

/// Indices into the `jump` array.
mod jump {
    pub const FAST: u32 = 0;
    pub const SLOW: u32 = 1;
}

/// Where a hook begins. The programs that it jumps to find its number in the packet's control block.
#[inline(always)]
pub fn enter(ctx: &TcContext, hook: Hook) -> i32 {
    Skb::of(ctx).set_hook(hook);
    jump(ctx, jump::FAST)
}

/// The established packet is decided here, any other by the `slow` program.
#[inline(always)]
pub fn fast(ctx: &TcContext) -> i32 {
    match established(ctx) {
        Some(verdict) => exit::leave(verdict),
        None => jump(ctx, jump::SLOW),
    }
}

#[inline(always)]
pub fn slow(ctx: &TcContext) -> i32 {
    let skb = Skb::of(ctx);
    exit::leave(decide(skb, skb.hook()))
}

#[inline(always)]
fn jump(ctx: &TcContext, index: u32) -> i32 {
    // SAFETY: the context is this program's own. On success the call does not return.
    unsafe { maps::JUMP.tail_call(ctx, index) };
    exit::leave(Verdict::drop(Reason::Internal))
}
