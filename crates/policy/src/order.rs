//! Who wins: between rules of a tier by rank, between tiers by their order.

use std::collections::BTreeMap;

use crate::model::{Policy, Tier};
use crate::resolved::{Action, CauseIndex, Decision, Direction, Slot, Slots, Verdict};

/// A verdict and the slot that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// `None` where nothing decided and the default, allow, holds.
    pub cause: Option<CauseIndex>,
}

/// Bits of a rank below the priority: how many rules of one priority, side and tier have ranks of their own.
const ORDINAL_BITS: u32 = 20;

/// The place of each of the policies' rules, by index of the policy in `policies` and of the rule in its list.
///
/// 1. Lower priority value first.
/// 2. Same priority: policies in the order of their names.
/// 3. Same policy: rules in the order written.
///
/// A rank keeps its value when a policy of another priority comes or goes. Rules of one priority past the 2^20th share
/// the last rank.
#[must_use]
pub fn ranks(policies: &[&Policy], direction: Direction) -> BTreeMap<(usize, usize), u32> {
    let mut order: Vec<usize> = (0..policies.len()).collect();
    order.sort_by_key(|&index| {
        let policy = policies[index];
        (policy.tier, policy.priority, &policy.reference)
    });
    let mut ordinals = BTreeMap::<(Tier, u16), u32>::new();
    let mut ranks = BTreeMap::new();
    for index in order {
        let policy = policies[index];
        let ordinal = ordinals.entry((policy.tier, policy.priority)).or_default();
        for rule in 0..policy.rules(direction).rules.len() {
            ranks.insert(
                (index, rule),
                (u32::from(policy.priority) << ORDINAL_BITS) + *ordinal,
            );
            *ordinal = (*ordinal + 1).min((1 << ORDINAL_BITS) - 1);
        }
    }
    ranks
}

/// The better of two slots of the same side and tier.
#[must_use]
pub fn better(one: Option<Slot>, other: Option<Slot>) -> Option<Slot> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What holds for a peer that is known in two ways.
#[must_use]
pub fn meet(one: &Decision, other: &Decision) -> Decision {
    Decision {
        enforced: meet_slots(&one.enforced, &other.enforced),
        dry_run: meet_slots(&one.dry_run, &other.dry_run),
    }
}

fn meet_slots(one: &Slots, other: &Slots) -> Slots {
    Slots {
        admin: better(one.admin, other.admin),
        network_policy: better(one.network_policy, other.network_policy),
        baseline: better(one.baseline, other.baseline),
    }
}

/// What the slots of all tiers come to.
///
/// 1. Admin: `Accept` and `Deny` are final; `Pass` and no rule go on.
/// 2. NetworkPolicy: its slot is final; without one, go on.
/// 3. Baseline: `Accept` and `Deny` are final; `Pass` and no rule go on.
/// 4. Allow.
#[must_use]
pub fn judge(slots: &Slots) -> Ruling {
    for slot in [slots.admin, slots.network_policy, slots.baseline]
        .into_iter()
        .flatten()
    {
        let verdict = match slot.action {
            Action::Accept => Verdict::Allow,
            Action::Deny => Verdict::Deny,
            Action::Pass => continue,
        };
        return Ruling {
            verdict,
            cause: Some(slot.cause),
        };
    }
    Ruling {
        verdict: Verdict::Allow,
        cause: None,
    }
}

impl Slots {
    pub fn tier_mut(&mut self, tier: Tier) -> &mut Option<Slot> {
        match tier {
            Tier::Admin => &mut self.admin,
            Tier::NetworkPolicy => &mut self.network_policy,
            Tier::Baseline => &mut self.baseline,
        }
    }

    #[must_use]
    pub fn tier(&self, tier: Tier) -> Option<Slot> {
        match tier {
            Tier::Admin => self.admin,
            Tier::NetworkPolicy => self.network_policy,
            Tier::Baseline => self.baseline,
        }
    }
}
