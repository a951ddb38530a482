//! What the judges of policy share: maps in memory, the host's datapath over them, and generated clusters.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

pub mod cluster;
pub mod host;
pub mod memory;
