//! May this connection be? The precedence of tiers, of the two look-ups, and of the two ends.
//!
//! A connection passes when the source's egress side and the destination's ingress side both allow it; only ends
//! that are pods of this node are judged here. On each side:
//!
//! 1. the entry of the peer's identity is found, or else the one for any peer; who has none and an address of another
//!    node's pods is [`UNKNOWN_POD`];
//! 2. where the side has CIDR rules, the entry of the longest CIDR around the peer's address too;
//! 3. of each, the longest matching port prefix replaces the slots;
//! 4. tier by tier the better rank of the two holds;
//! 5. Admin `Accept` and `Deny` are final and `Pass` goes on; a NetworkPolicy slot is final; Baseline `Accept` and
//!    `Deny` are final; what is left is allowed.

use weir_abi::address::{Address, CidrKey, UNKNOWN_IDENTITY, UNKNOWN_POD, address_flags};
use weir_abi::config::POD_RANGE;
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::policy::{
    ANY_PEER, CIDR_PEER, EGRESS, INGRESS, NO_PORTS, NO_RULE, PolicyKey, PolicyValue, PortKey, PortValue, side,
};
use weir_abi::reason::Reason;
use weir_abi::slots::{self, Slots};
use weir_abi::workload::{NO_POLICY_SET, Workload, workload_flags};

use crate::tables::Tables;

/// A connection to judge, from the end that opens it. Addresses are the real ones, after Service translation.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    pub source: Address,
    pub destination: Address,
    /// The pods of this node that have these addresses; all zero where there is none.
    pub source_pod: Workload,
    pub destination_pod: Workload,
    /// Network byte order; 0 where the protocol has no ports.
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub padding: [u8; 3],
}

impl Connection {
    #[inline(always)]
    pub fn is_from_pod(&self) -> bool {
        self.source_pod.ifindex != 0
    }

    #[inline(always)]
    pub fn is_to_pod(&self) -> bool {
        self.destination_pod.ifindex != 0
    }
}

/// What both sides say. Every field is written by [`judge`].
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub source_identity: u32,
    pub destination_identity: u32,
    pub egress: SideVerdict,
    pub ingress: SideVerdict,
    /// Of the side that is being judged: what it says, the address of its peer, the peer's identity, the policy set and
    /// the flags of its pod, the better slots of the entries found.
    pub side: SideVerdict,
    pub peer: CidrKey,
    /// [`UNKNOWN_POD`] for a pod of another node whose identity is not known yet.
    pub peer_identity: u32,
    pub policy_set: u32,
    pub flags: u32,
    pub padding: u32,
    pub enforced: Slots,
    pub dry_run: Slots,
}

impl Judgement {
    pub const NONE: Self = Self {
        source_identity: UNKNOWN_IDENTITY,
        destination_identity: UNKNOWN_IDENTITY,
        egress: SideVerdict::NOT_JUDGED,
        ingress: SideVerdict::NOT_JUDGED,
        side: SideVerdict::NOT_JUDGED,
        peer: CidrKey {
            prefix_len: 0,
            address: [0; 4],
        },
        peer_identity: UNKNOWN_IDENTITY,
        policy_set: NO_POLICY_SET,
        flags: 0,
        padding: 0,
        enforced: Slots::EMPTY,
        dry_run: Slots::EMPTY,
    };
}

/// Judges `connection`. The reason returned is the one for which its first packet goes on or is dropped.
#[inline(always)]
pub fn judge<T: Tables>(tables: &T, connection: &Connection, judgement: &mut Judgement) -> Reason {
    judgement.egress = SideVerdict::NOT_JUDGED;
    judgement.ingress = SideVerdict::NOT_JUDGED;
    let (from_pod, to_pod) = (connection.is_from_pod(), connection.is_to_pod());
    judgement.source_identity = connection.source_pod.identity;
    judgement.destination_identity = connection.destination_pod.identity;
    if from_pod && to_pod {
        if connection.source == connection.destination {
            return Reason::ToItself;
        }
    } else if from_pod {
        match peer(tables, &connection.destination) {
            Peer::LocalNode => return Reason::LocalNode,
            Peer::Identity(identity) => judgement.destination_identity = identity,
        }
    } else if to_pod {
        match peer(tables, &connection.source) {
            Peer::LocalNode => return Reason::LocalNode,
            Peer::Identity(identity) => judgement.source_identity = identity,
        }
    } else {
        return Reason::NotForPod;
    }
    let mut reason = Reason::DefaultAllowed;
    if from_pod {
        reason = judge_end(tables, EGRESS, connection, judgement);
    }
    if to_pod && reason.is_forward() {
        let ingress = judge_end(tables, INGRESS, connection, judgement);
        if !matches!(ingress, Reason::DefaultAllowed) {
            reason = ingress;
        }
    }
    // The side that was judged last is the one that denies.
    if judgement.peer_identity == UNKNOWN_POD && matches!(reason, Reason::RuleDenied | Reason::Isolated) {
        return Reason::PeerUnknown;
    }
    reason
}

enum Peer {
    LocalNode,
    Identity(u32),
}

#[inline(always)]
fn peer<T: Tables>(tables: &T, address: &Address) -> Peer {
    match tables.address(address) {
        Some(value) if value.flags & address_flags::LOCAL_NODE != 0 => Peer::LocalNode,
        Some(value) => Peer::Identity(value.identity),
        None => Peer::Identity(UNKNOWN_IDENTITY),
    }
}

/// Judges one side. Everything that the direction decides is decided here, so that the verifier goes through the rest
/// once.
#[inline(always)]
pub fn judge_end<T: Tables>(
    tables: &T,
    direction: u32,
    connection: &Connection,
    judgement: &mut Judgement,
) -> Reason {
    let (pod, peer, identity) = if direction == EGRESS {
        let identity = judgement.destination_identity;
        (&connection.source_pod, &connection.destination, identity)
    } else {
        let identity = judgement.source_identity;
        (&connection.destination_pod, &connection.source, identity)
    };
    judgement.peer.prefix_len = 128;
    judgement.peer.address = peer.0;
    judgement.peer_identity = identity;
    judgement.policy_set = pod.policy_set;
    judgement.flags = pod.flags;
    let reason = tables.judge_side(direction, connection, judgement);
    if direction == EGRESS {
        judgement.egress = judgement.side;
    } else {
        judgement.ingress = judgement.side;
    }
    reason
}

/// The part of [`judge_end`] that [`Tables::judge_side`] does.
#[inline(always)]
pub fn judge_side<T: Tables>(
    tables: &T,
    direction: u32,
    connection: &Connection,
    judgement: &mut Judgement,
) -> Reason {
    judgement.side = SideVerdict::NOT_JUDGED;
    if judgement.flags & workload_flags::CLOSED != 0 {
        judgement.side.verdict = side_verdict::DENY;
        return Reason::PodClosed;
    }
    judgement.enforced = Slots::EMPTY;
    judgement.dry_run = Slots::EMPTY;
    if judgement.policy_set != NO_POLICY_SET {
        let side = side(judgement.policy_set, direction);
        if judgement.peer_identity == UNKNOWN_IDENTITY
            && let Some(range) = tables.range(&judgement.peer)
            && range & POD_RANGE != 0
        {
            judgement.peer_identity = UNKNOWN_POD;
        }
        let peer = judgement.peer_identity;
        let found = peer != UNKNOWN_IDENTITY && tables.merge(PolicyKey { side, peer }, connection, judgement);
        if !found {
            tables.merge(PolicyKey { side, peer: ANY_PEER }, connection, judgement);
        }
        if judgement.flags & workload_flags::cidrs(direction) != 0
            && let Some(number) = tables.cidr(&judgement.peer)
        {
            tables.merge(
                PolicyKey {
                    side,
                    peer: CIDR_PEER | number,
                },
                connection,
                judgement,
            );
        }
    }
    let enforced = evaluate(&judgement.enforced);
    let dry_run = evaluate(&judgement.dry_run);
    let side = &mut judgement.side;
    side.rule = enforced.rule;
    side.dry_run_rule = dry_run.rule;
    side.verdict = enforced.verdict;
    side.dry_run_verdict = dry_run.verdict;
    enforced.reason
}

/// Merges the entry of one key into what was found, the part of [`judge_side`] that [`Tables::merge`] does. Whether
/// there is one.
#[inline(always)]
pub fn merge<T: Tables>(
    tables: &T,
    key: PolicyKey,
    connection: &Connection,
    judgement: &mut Judgement,
) -> bool {
    let Some(entry) = tables.policy(&key) else {
        return false;
    };
    match by_port(tables, entry, connection) {
        Some(value) => {
            better(&mut judgement.enforced, &value.enforced);
            better(&mut judgement.dry_run, &value.dry_run);
        }
        None => {
            better(&mut judgement.enforced, &entry.enforced);
            better(&mut judgement.dry_run, &entry.dry_run);
        }
    }
    true
}

/// Port prefixes have lengths that are multiples of this, so that five look-ups find the longest.
pub const PREFIX_STEP: u32 = 4;

/// The longest prefix of the entry's port table that holds the port.
#[inline(always)]
fn by_port<'t, T: Tables>(
    tables: &'t T,
    entry: &PolicyValue,
    connection: &Connection,
) -> Option<&'t PortValue> {
    if entry.port_table == NO_PORTS {
        return None;
    }
    let destination = u32::from(u16::from_be(connection.destination_port));
    let mut shift = 0;
    while shift <= 16 {
        let prefix_len = 16 - shift;
        if entry.prefix_lens >> prefix_len & 1 != 0 {
            let key = PortKey {
                table: entry.port_table,
                port: ((destination >> shift) << shift) as u16,
                protocol: connection.protocol,
                prefix_len: prefix_len as u8,
            };
            if let Some(value) = tables.port(&key) {
                return Some(value);
            }
        }
        shift += PREFIX_STEP;
    }
    None
}

#[inline(always)]
fn better(slots: &mut Slots, other: &Slots) {
    slots.admin = slots.admin.min(other.admin);
    slots.network_policy = slots.network_policy.min(other.network_policy);
    slots.baseline = slots.baseline.min(other.baseline);
}

struct Outcome {
    reason: Reason,
    verdict: u8,
    rule: u32,
}

#[inline(always)]
fn evaluate(slots: &Slots) -> Outcome {
    if slots.admin != slots::EMPTY && slots::action(slots.admin) != slots::PASS {
        return decided(slots.admin, Reason::RuleDenied);
    }
    if slots.network_policy != slots::EMPTY {
        return decided(slots.network_policy, Reason::Isolated);
    }
    if slots.baseline != slots::EMPTY && slots::action(slots.baseline) != slots::PASS {
        return decided(slots.baseline, Reason::RuleDenied);
    }
    Outcome {
        reason: Reason::DefaultAllowed,
        verdict: side_verdict::ALLOW,
        rule: NO_RULE,
    }
}

#[inline(always)]
fn decided(slot: u64, denial: Reason) -> Outcome {
    let rule = slots::rule(slot);
    if slots::action(slot) == slots::ACCEPT {
        Outcome {
            reason: Reason::Allowed,
            verdict: side_verdict::ALLOW,
            rule,
        }
    } else {
        Outcome {
            reason: denial,
            verdict: side_verdict::DENY,
            rule,
        }
    }
}
