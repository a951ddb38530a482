//! What [`resolve`](crate::resolve()) returns: for the pods of one node, the decisions of every policy, ready to be
//! laid out in the kernel's maps by someone who knows them.
//!
//! Everything here is ordered and content-addressed: the same input gives the same value, whatever came before.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{PolicyRef, Tier};
use crate::snapshot::PodId;

/// An identity's number. Given by the operator (in standalone mode: by the agent); never 0.
pub type IdentityNumber = u32;

/// Stands among the identities for a pod whose own is not known yet. No identity has this number.
pub const UNKNOWN_POD: IdentityNumber = (1 << 31) - 1;

/// Index into [`Resolved::causes`].
pub type CauseIndex = u32;

/// All decisions for the pods of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Why a decision was made. What the slots point at.
    pub causes: Vec<Cause>,
    /// Every CIDR that some rule names (`except` included), sorted. A peer's address belongs to the longest one
    /// that contains it, and that CIDR's entries already hold the rules of all the shorter ones.
    pub cidrs: Vec<IpNet>,
    /// Distinct port tables, shared between peers and sets.
    pub port_tables: Vec<PortTable>,
    /// Distinct policy sets. Pods to which the same policies apply share one.
    pub sets: Vec<PolicySet>,
    /// The set of each local pod that some policy applies to. A pod that is absent is not restricted.
    pub pods: BTreeMap<PodId, usize>,
}

/// The policies that apply to a group of pods, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicySet {
    pub ingress: Side,
    pub egress: Side,
}

/// One direction of a policy set. `None` in [`Side::any`] means that nothing restricts this direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side {
    /// What holds for a peer that has no entry of its own below.
    pub any: Option<Entry>,
    /// Complete entries: each already contains what `any` says. [`UNKNOWN_POD`] among them is allowed only what every
    /// pod is.
    pub identities: BTreeMap<IdentityNumber, Entry>,
    /// By index into [`Resolved::cidrs`]. Complete entries: each already contains what `any` and every shorter
    /// CIDR around it say. Present only where it differs from `any`, or where a shorter CIDR around it differs.
    pub cidrs: BTreeMap<usize, Entry>,
}

/// What holds for one peer. A peer found both by identity and by CIDR gets, tier by tier, the better rank of the two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// For every protocol and port that `ports` does not list, ICMP included.
    pub decision: Decision,
    /// Index into [`Resolved::port_tables`].
    pub ports: Option<usize>,
}

/// Decisions that depend on protocol and destination port. The longest matching prefix holds, and is complete:
/// it already contains what the shorter ones and the entry's own decision say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortTable {
    pub prefixes: BTreeMap<PortPrefix, Decision>,
}

/// A block of destination ports of one protocol: those whose first `len` bits equal `port`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPrefix {
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// 0 (every port) to 16 (this port alone).
    pub len: u8,
    /// Host byte order; bits past `len` are zero.
    pub port: u16,
}

/// What is enforced, and what would be if the dry-run policies were in force too (equal where there are none).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    pub enforced: Slots,
    pub dry_run: Slots,
}

/// One slot a tier; `None` where no rule of that tier matches.
///
/// Evaluation: Admin `Accept` and `Deny` are final, `Pass` or no slot goes on to NetworkPolicy; its slot is final;
/// no slot goes on to Baseline; there `Pass` or no slot means the default, allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slots {
    pub admin: Option<Slot>,
    /// `Accept`, or `Deny` for the implicit denial of an isolated pod.
    pub network_policy: Option<Slot>,
    pub baseline: Option<Slot>,
}

/// The winning rule of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Lower wins. Comparable between entries of the same side and tier only. At most 2^30 - 1; the implicit
    /// denial of NetworkPolicy has [`Slot::IMPLICIT_DENY_RANK`], so that any allow beats it.
    pub rank: u32,
    pub action: Action,
    pub cause: CauseIndex,
}

impl Slot {
    pub const IMPLICIT_DENY_RANK: u32 = (1 << 30) - 2;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    Accept,
    Deny,
    Pass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    Ingress,
    Egress,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    Allow,
    Deny,
}

/// Why a decision was made: the answer to "which rule?".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A rule that somebody wrote.
    Rule {
        policy: PolicyRef,
        tier: Tier,
        direction: Direction,
        /// Index of the rule in its list, from 0.
        index: usize,
        /// ClusterNetworkPolicy rules may have a name.
        name: Option<String>,
        action: Action,
    },
    /// No NetworkPolicy rule allowed it, and these policies isolate the pod in this direction. Sorted.
    Isolated {
        policies: Vec<PolicyRef>,
        direction: Direction,
    },
}

/// A flow to judge, as the oracle and the tests name it. Addresses are the real ones, after service translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// 0 where the protocol has no ports.
    pub destination_port: u16,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Cause {
    /// Like `NetworkPolicy shop/db ingress[0]` or `isolation by NetworkPolicy shop/db`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule {
                policy,
                direction,
                index,
                name,
                ..
            } => {
                write!(f, "{policy} {direction}[{index}]")?;
                name.iter().try_for_each(|name| write!(f, " {name:?}"))
            }
            Self::Isolated { policies, .. } => {
                f.write_str("isolation by ")?;
                policies.iter().enumerate().try_for_each(|(index, policy)| {
                    write!(f, "{}{policy}", if index == 0 { "" } else { ", " })
                })
            }
        }
    }
}
