//! What the agent tells the programs: constants set before load, and the few values that change while they run.

/// Names of the read-only globals of the `weir` object, set by the loader before load so that the verifier prunes
/// by them. All are `u32`.
pub mod global {
    /// By how many bits the kernel's tick counter is shifted to count in units of about a second (0.7 to 1.4 s): the
    /// unit of every age. 7 for 100 ticks a second, 8 for 250 and 300, 10 for 1000.
    pub const CLOCK_SHIFT: &str = "CLOCK_SHIFT";
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
