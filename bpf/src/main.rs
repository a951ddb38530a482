//! Weir's eBPF programs. Entry points only: each hook has a file of its own.
#![no_std]
#![no_main]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is copied to the 512-byte stack"
)]

mod clock;
mod config;
mod exit;
mod fast;
mod fragment;
mod hook;
mod hooks;
mod icmp;
mod lookup;
mod maps;
mod masquerade;
mod record;
mod rewrite;
mod scratch;
mod skb;
mod slow;
mod subprogram;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};

use crate::hook::Hook;
use crate::hooks::socket::{V4, V6};
use crate::hooks::{packet, socket};

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    packet::enter(&ctx, Hook::FromPod)
}

#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    packet::enter(&ctx, Hook::ToPod)
}

#[classifier]
pub fn from_wire(ctx: TcContext) -> i32 {
    packet::enter(&ctx, Hook::FromWire)
}

#[classifier]
pub fn fast(ctx: TcContext) -> i32 {
    packet::fast(&ctx)
}

#[classifier]
pub fn slow(ctx: TcContext) -> i32 {
    packet::slow(&ctx)
}

/// What time it is, by the programs' clock. Attached to nothing.
#[classifier]
pub fn clock(_: TcContext) -> i32 {
    clock::now() as i32
}

#[classifier]
pub fn explain(ctx: TcContext) -> i32 {
    hooks::explain::run(&ctx)
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    socket::outgoing::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    socket::outgoing::<V6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::outgoing::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::outgoing::<V6>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::incoming::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::incoming::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::incoming::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::incoming::<V6>(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
