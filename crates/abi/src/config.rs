//! What the agent tells the programs: constants set before load, and the few values that change while they run.

use crate::address::Address;

/// Names of the read-only globals of the `weir` object, set by the loader before load so that the verifier prunes
/// by them. All are `u32` but where it says so.
pub mod global {
    /// By how many bits the kernel's tick counter is shifted to count in units of about a second (0.7 to 1.4 s): the
    /// unit of every age. 7 for 100 ticks a second, 8 for 250 and 300, 10 for 1000.
    pub const CLOCK_SHIFT: &str = "CLOCK_SHIFT";
    /// The cookie (`SO_NETNS_COOKIE`) of the node's network namespace, where loopback addresses are the node's; 0
    /// stands for the kernel's first namespace. A `u64`.
    pub const NODE_NETNS: &str = "NODE_NETNS";
}

/// Entry 0 of the `control` array. Written by the agent only, whole.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Control {
    /// Raised after every change of policy, addresses or workloads: a flow entry with another revision is decided
    /// again at its next packet.
    pub revision: u32,
    /// Records a second and CPU; above it, records are lost and counted.
    pub log_budget: u32,
}

/// Entry 0 of the `masquerade` array: as whom pods speak to the outside.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Masquerade {
    /// The node's address that takes the place of a pod's; all zero where the family is not masqueraded.
    pub v4: Address,
    pub v6: Address,
    /// Host byte order. The ports, and the identifiers of ICMP echo, that such connections get: so many from here on.
    pub first_port: u16,
    /// Not 0 where an address is set; `first_port + ports` is at most 65,536.
    pub ports: u16,
    pub padding: u32,
}

/// In every value of the `non_masquerade` LPM trie, whose keys are [`CidrKey`](crate::address::CidrKey)s: destinations
/// that pods speak to as themselves.
pub const NON_MASQUERADE: u32 = 1 << 0;
/// Of those, the ranges that other nodes give their pods addresses of.
pub const POD_RANGE: u32 = 1 << 1;

/// Ports tried for one connection before it is given up.
pub const PORT_ATTEMPTS: u32 = 32;

/// Value of the per-CPU `log_budget` array: what of the budget this second has used.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogBudget {
    /// In units of the programs' clock, [`global::CLOCK_SHIFT`].
    pub second: u32,
    pub used: u32,
    /// Number of the next record of this CPU. Given to every record that is due, written or not.
    pub sequence: u64,
    /// Records that were due and could not be written.
    pub lost: u64,
    /// Allowed connections seen, for sampling.
    pub sampled: u64,
}

/// Entry 0 of the `overflow` array: `u32`, when the flow table last refused an entry, in units of the programs' clock; 0 never.
pub const OVERFLOW_INDEX: u32 = 0;
