//! Which hook a tc program runs on.

use weir_abi::flow::TO_STACK;

#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// tc ingress of the host side of a pod's veth: what the pod sends.
    FromPod = 0,
    /// tc egress of the same: what the node's network stack sends to the pod.
    ToPod = 1,
    /// tc ingress of an uplink.
    FromWire = 2,
}

impl Hook {
    /// The hook with this number; what is none is the strictest.
    #[inline(always)]
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::ToPod,
            2 => Self::FromWire,
            _ => Self::FromPod,
        }
    }

    /// The `ifindex` that the hop of a flow's end has whose packets come this way. An end that is a
    /// pod of this node sends through its own veth and nowhere else.
    #[inline(always)]
    pub fn sender(self, ifindex: u32) -> u32 {
        match self {
            Self::FromPod => ifindex,
            Self::ToPod | Self::FromWire => TO_STACK,
        }
    }

    /// What is left of the receiver's hop: nothing where the packet is there when it is let pass.
    #[inline(always)]
    pub fn hop_mask(self) -> u32 {
        match self {
            Self::ToPod => TO_STACK,
            Self::FromPod | Self::FromWire => u32::MAX,
        }
    }
}
