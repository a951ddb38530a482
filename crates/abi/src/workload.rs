//! The pods of this node.

/// Value of the `workloads` hash, keyed by [`Address`](crate::address::Address): what the programs must know of a local pod.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Workload {
    /// Host side of the pod's veth, in the node's network namespace.
    pub ifindex: u32,
    /// Identity number.
    pub identity: u32,
    /// Policy set number; [`NO_POLICY_SET`] where no policy applies to the pod.
    pub policy_set: u32,
    /// Bits of [`workload_flags`].
    pub flags: u32,
    /// Of the pod's own interface.
    pub pod_mac: [u8; 6],
    /// Of the host side of its veth.
    pub host_mac: [u8; 6],
    /// Every how many allowed connections one is logged; 1 logs all.
    pub log_allow_every: u32,
}

pub const NO_POLICY_SET: u32 = 0;

pub mod workload_flags {
    /// The pod's policy is not complete: nothing but traffic with its own node passes.
    pub const CLOSED: u32 = 1 << 0;
    /// Some side of the pod's policy set has CIDR entries.
    pub const INGRESS_CIDRS: u32 = 1 << 1;
    pub const EGRESS_CIDRS: u32 = 1 << 2;

    /// Of the two above, that of a direction.
    #[inline(always)]
    pub const fn cidrs(direction: u32) -> u32 {
        INGRESS_CIDRS << direction
    }

    /// What the FlowLogPolicies want to hear of the pod.
    pub const LOG_INGRESS_ALLOW: u32 = 1 << 8;
    pub const LOG_INGRESS_DENY: u32 = 1 << 9;
    pub const LOG_EGRESS_ALLOW: u32 = 1 << 10;
    pub const LOG_EGRESS_DENY: u32 = 1 << 11;
}
