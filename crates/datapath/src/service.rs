//! From a virtual address to a backend.

use weir_abi::address::Address;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};

use crate::tables::Tables;

/// What a destination is.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'t> {
    /// No Service has this address, protocol and port.
    Plain,
    /// The Service has nobody who can serve.
    NoBackend,
    Backend(&'t Backend),
}

/// `port` in network byte order. `choice` is any number; equal choices give equal backends while the Service's
/// backends stay the same.
#[inline(always)]
pub fn resolve<'t, T: Tables>(
    tables: &'t T,
    address: &Address,
    port: u16,
    protocol: u8,
    choice: u32,
) -> Destination<'t> {
    let key = ServiceKey {
        address: *address,
        port,
        protocol,
        padding: [0; 5],
    };
    match tables.service(&key) {
        None => Destination::Plain,
        Some(&ServiceValue { first, count }) => {
            if count == 0 {
                return Destination::NoBackend;
            }
            match tables.backend(first.wrapping_add(choice % count)) {
                // An all-zero slot belongs to nobody: the entry and its range were written in that order.
                Some(backend) if backend.port != 0 => Destination::Backend(backend),
                _ => Destination::NoBackend,
            }
        }
    }
}
