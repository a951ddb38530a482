//! The policy maps: who may talk to whom, and which rule says so.

use crate::slots::Slots;

/// Key of the `policy` hash.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Policy set number and direction: see [`side`].
    pub side: u32,
    /// An identity number, a CIDR number with [`CIDR_PEER`] set, or [`ANY_PEER`].
    pub peer: u32,
}

/// The set's number in the upper 31 bits, the direction in the lowest.
#[inline(always)]
pub const fn side(set: u32, direction: u32) -> u32 {
    set << 1 | direction
}

pub const INGRESS: u32 = 0;
pub const EGRESS: u32 = 1;

/// The peer of the entry that holds for every peer without one of its own.
pub const ANY_PEER: u32 = 0;
/// Set in the peer number of a CIDR.
pub const CIDR_PEER: u32 = 1 << 31;

/// Value of the `policy` hash.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyValue {
    /// For every protocol and port that the port table does not list.
    pub enforced: Slots,
    /// What would hold if the dry-run policies were in force.
    pub dry_run: Slots,
    /// Number of the port table; [`NO_PORTS`] where ports do not matter.
    pub port_table: u32,
    /// Bit `n` is set where the port table has a prefix of length `n` (0, 4, 8, 12, 16), so that absent lengths cost
    /// nothing.
    pub prefix_lens: u32,
}

pub const NO_PORTS: u32 = 0;

/// Key of the `ports` hash. Ranges are split into prefixes; the longest that is present holds.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Port table number, from 1.
    pub table: u32,
    /// Destination port in **host** byte order, bits past the prefix zero.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 0, 4, 8, 12 or 16: few lengths keep the longest match to five look-ups.
    pub prefix_len: u8,
}

/// Value of the `ports` hash: complete, replaces the policy entry's own slots.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortValue {
    pub enforced: Slots,
    pub dry_run: Slots,
}

/// Value of the per-CPU `rule_counts` array, indexed by rule number: what the rule decided.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RuleCount {
    /// Connections allowed.
    pub allowed: u64,
    /// Packets denied.
    pub denied: u64,
    /// Of both, those for which a record was due, as the flow log bits of the pod say.
    pub logged: u64,
    /// Of those, the records that could not be written.
    pub lost: u64,
}

/// The rule number of "no rule".
pub const NO_RULE: u32 = 0;

/// Key of the `numbers` hash, which no program reads: what a number in another map stands for, so that an agent
/// with no memory gives the same things the same numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberKey {
    /// One of [`number_space`].
    pub space: u32,
    pub number: u32,
}

/// Digest of the thing that has the number.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberValue {
    pub digest: [u64; 2],
}

pub mod number_space {
    pub const RULE: u32 = 1;
    pub const IDENTITY: u32 = 2;
}
