//! Packets to verdicts as plain functions.
//!
//! The same source runs in the eBPF programs and on the host, where it is tested, fuzzed and compared with the
//! policy oracle. It takes packet bytes through [`bytes::Bytes`] and map contents through [`tables::Tables`]; it
//! attaches to nothing, writes to no map and never panics.
#![no_std]

#[cfg(feature = "testing")]
extern crate alloc;

pub mod bytes;
pub mod flow;
pub mod judge;
pub mod packet;
pub mod parse;
pub mod service;
pub mod tables;
#[cfg(feature = "testing")]
pub mod testing;
