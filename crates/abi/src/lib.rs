//! What the eBPF programs and the agent share: map keys and values, reasons, events, load-time configuration.
//!
//! Every struct is `repr(C)` with explicit, zeroed padding; [`layout`] asserts sizes and offsets at compile time, so
//! that both sides see the same bytes. Addresses and ports are in network byte order, everything else in the
//! machine's own. No logic lives here beyond reading and packing a field.
#![no_std]

pub mod address;
pub mod config;
pub mod event;
pub mod explain;
pub mod flow;
mod layout;
pub mod limits;
pub mod plain;
pub mod policy;
pub mod reason;
pub mod service;
pub mod slots;
pub mod workload;

/// Version of every layout in this crate. It is part of the pinned names, so programs and maps of two versions
/// never meet; a change of any `repr(C)` struct raises it.
pub const ABI_VERSION: u32 = 2;
