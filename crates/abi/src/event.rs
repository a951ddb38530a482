//! What the programs report through the ring buffer.

use crate::address::Address;

/// One decision about a connection (allowed: its first packet) or a packet (denied).
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowEvent {
    /// [`EVENT_VERSION`].
    pub version: u16,
    /// CPU that wrote it; `sequence` counts per CPU.
    pub cpu: u16,
    /// A [`Reason`](crate::reason::Reason) number.
    pub reason: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags of the packet, or the ICMP type.
    pub detail: u8,
    /// Bits of [`event_flags`].
    pub flags: u8,
    /// Gaps in it are records that were lost.
    pub sequence: u64,
    /// Nanoseconds of the boot clock (`CLOCK_MONOTONIC`).
    pub time: u64,
    /// As the packet's sender wrote them.
    pub source: Address,
    /// The real destination, after Service translation.
    pub destination: Address,
    /// What the sender asked for, where a Service was translated; else zero.
    pub service: Address,
    /// Network byte order.
    pub source_port: u16,
    pub destination_port: u16,
    pub service_port: u16,
    pub padding: u16,
    pub source_identity: u32,
    pub destination_identity: u32,
    /// The source's side.
    pub egress: SideVerdict,
    /// The destination's side.
    pub ingress: SideVerdict,
}

pub const EVENT_VERSION: u16 = 1;

pub mod event_flags {
    /// The source is a pod of this node and its FlowLogPolicies want this record.
    pub const LOG_EGRESS: u8 = 1 << 0;
    /// The destination is a pod of this node and its FlowLogPolicies want this record.
    pub const LOG_INGRESS: u8 = 1 << 1;
}

/// What one side's policy says.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SideVerdict {
    /// The rule that decided; [`NO_RULE`](crate::policy::NO_RULE) for the default.
    pub rule: u32,
    /// The same, were the dry-run policies in force.
    pub dry_run_rule: u32,
    /// One of [`side_verdict`].
    pub verdict: u8,
    pub dry_run_verdict: u8,
    pub padding: u16,
}

impl SideVerdict {
    pub const NOT_JUDGED: Self = Self {
        rule: crate::policy::NO_RULE,
        dry_run_rule: crate::policy::NO_RULE,
        verdict: side_verdict::NOT_JUDGED,
        dry_run_verdict: side_verdict::NOT_JUDGED,
        padding: 0,
    };
}

pub mod side_verdict {
    /// That end is no pod of this node, or the other side denied first.
    pub const NOT_JUDGED: u8 = 0;
    pub const ALLOW: u8 = 1;
    pub const DENY: u8 = 2;
}
