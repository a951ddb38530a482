//! A packet's life, program by program: what becomes of it, of every counter and of the log.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unreachable_pub, reason = "modules of a test binary")]

#[path = "../kernel_bed/mod.rs"]
mod kernel_bed;

mod bed;
mod connections;
mod ends;
mod errors;
mod explain;
mod fragments;
mod full_table;
mod host_ports;
mod log;
mod malformed;
mod masquerade;
mod services;
mod unknown_pod;
