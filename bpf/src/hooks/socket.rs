//! Connect-time load balancing: a socket that asks for a Service is given a backend, and is told the Service's
//! address when it asks whom it talks to.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use weir_abi::address::Address;
use weir_abi::service::{SocketKey, SocketValue};
use weir_datapath::packet::protocol;
use weir_datapath::service::{self, Destination};

use crate::config;
use crate::lookup::Kernel;
use crate::maps::SOCKETS;

/// The call goes on; these programs never refuse one.
const PROCEED: i32 = 1;

/// `connect` and `sendmsg`. Where nobody can serve, the address stays: the packet path answers.
#[inline(always)]
pub fn outgoing<F: Family>(ctx: &SockAddrContext) -> i32 {
    let asked = F::address(ctx);
    let port = port(ctx);
    let proto = protocol(ctx);
    let cookie = cookie(ctx);
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    // A UDP socket that sends datagram by datagram keeps its backend as long as the Service keeps its endpoints.
    let choice = if proto == protocol::UDP {
        mix(cookie)
    } else {
        random
    };
    // A loopback address is everybody's own; what host ports have of them are the node's.
    if is_loopback(&asked) && !is_of_node(ctx) {
        return PROCEED;
    }
    if let Destination::Backend(backend) = service::resolve(&Kernel, &asked, port, proto, choice) {
        let key = SocketKey {
            cookie,
            backend: backend.address,
            port: backend.port,
            padding: [0; 3],
        };
        let value = SocketValue {
            address: asked,
            port,
            padding: [0; 3],
        };
        // Without it the socket works, but is told the backend's address.
        let _ = SOCKETS.insert(&key, &value, 0);
        F::set(ctx, &backend.address, backend.port);
    }
    PROCEED
}

#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    let words = &address.0;
    address.is_v4() && address.v4() & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
        || words[0] | words[1] | words[2] | (words[3] ^ 1_u32.to_be()) == 0
}

/// Whether the socket is in the node's network namespace.
#[inline(always)]
fn is_of_node(ctx: &SockAddrContext) -> bool {
    let node = config::node_netns();
    // SAFETY: the helper takes the context (5.7), or null for the kernel's first namespace.
    unsafe {
        let node = if node == 0 {
            bpf_get_netns_cookie(core::ptr::null_mut())
        } else {
            node
        };
        bpf_get_netns_cookie(ctx.sock_addr.cast()) == node
    }
}

/// `recvmsg` and `getpeername`: the Service's address for the backend's.
#[inline(always)]
pub fn incoming<F: Family>(ctx: &SockAddrContext) -> i32 {
    let key = SocketKey {
        cookie: cookie(ctx),
        backend: F::address(ctx),
        port: port(ctx),
        padding: [0; 3],
    };
    // SAFETY: whole integers.
    if let Some(asked) = unsafe { SOCKETS.get(&key) } {
        F::set(ctx, &asked.address, asked.port);
    }
    PROCEED
}

/// How the context holds addresses.
pub trait Family {
    fn address(ctx: &SockAddrContext) -> Address;
    fn set(ctx: &SockAddrContext, address: &Address, port: u16);
}

pub struct V4;
pub struct V6;

// Fields are read and written one by one and as volatile: merged accesses are refused ("invalid bpf_context access").
impl Family for V4 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the context is valid while the program runs.
        Address::from_v4(unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, address: &Address, port: u16) {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(address.v4());
            (&raw mut (*ctx.sock_addr).user_port).write_volatile(port as u32);
        }
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: as above.
        unsafe {
            let words = &raw const (*ctx.sock_addr).user_ip6;
            let words = words.cast::<u32>();
            Address([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, address: &Address, port: u16) {
        // SAFETY: as above.
        unsafe {
            let words = &raw mut (*ctx.sock_addr).user_ip6;
            let words = words.cast::<u32>();
            words.write_volatile(address.0[0]);
            words.add(1).write_volatile(address.0[1]);
            words.add(2).write_volatile(address.0[2]);
            words.add(3).write_volatile(address.0[3]);
            (&raw mut (*ctx.sock_addr).user_port).write_volatile(port as u32);
        }
    }
}

/// Network byte order.
#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as above.
    unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() as u16 }
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as above.
    unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() as u8 }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

/// The finaliser of MurmurHash3: neighbouring cookies choose far apart.
#[inline(always)]
fn mix(cookie: u64) -> u32 {
    let mut h = cookie;
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h as u32
}
