//! Services, their backends, and what sockets were translated.

use crate::address::Address;

/// Key of the `services` hash: a virtual address and port.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub address: Address,
    /// Network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub padding: [u8; 5],
}

/// Value of the `services` hash.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceValue {
    /// First index in the `backends` array.
    pub first: u32,
    /// How many follow from there; 0 where nobody can serve.
    pub count: u32,
}

/// Value of the `backends` array.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Backend {
    pub address: Address,
    /// Network byte order; 0 in a free slot.
    pub port: u16,
    pub padding: [u16; 3],
}

/// Key of the `sockets` LRU hash: a socket and the backend that it was given.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    pub backend: Address,
    /// Network byte order.
    pub port: u16,
    pub padding: [u16; 3],
}

/// Value of the `sockets` LRU hash: what the socket's owner asked for.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketValue {
    pub address: Address,
    /// Network byte order.
    pub port: u16,
    pub padding: [u16; 3],
}
