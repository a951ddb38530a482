//! The decision of each policy tier, packed so that the better of two is the smaller number.

/// One slot a tier. A slot is `rank << 34 | action << 32 | rule`, or [`EMPTY`] where no rule of the tier matches.
///
/// Lower rank wins, so merging what two look-ups found is `min` per tier.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slots {
    pub admin: u64,
    pub network_policy: u64,
    pub baseline: u64,
}

/// No rule of the tier matches.
pub const EMPTY: u64 = u64::MAX;

pub const ACCEPT: u32 = 0;
pub const DENY: u32 = 1;
pub const PASS: u32 = 2;

/// `rank` is below 2^30, `action` one of [`ACCEPT`], [`DENY`], [`PASS`].
#[inline(always)]
pub const fn slot(rank: u32, action: u32, rule: u32) -> u64 {
    (rank as u64) << 34 | (action as u64) << 32 | rule as u64
}

#[inline(always)]
pub const fn action(slot: u64) -> u32 {
    (slot >> 32) as u32 & 3
}

/// The rule number; meaningful only if the slot is not [`EMPTY`].
#[inline(always)]
pub const fn rule(slot: u64) -> u32 {
    slot as u32
}

impl Slots {
    pub const EMPTY: Self = Self {
        admin: EMPTY,
        network_policy: EMPTY,
        baseline: EMPTY,
    };
}
