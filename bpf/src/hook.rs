//! Which hook a tc program runs on.

use weir_datapath::flow::is_local;

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

    /// Whether a packet of a flow can have come this way from an end with this `ifindex` in its hop. An end that is a pod of this
    /// node sends through its own veth and nowhere else.
    #[inline(always)]
    pub fn admits(self, sender: u32, ifindex: u32) -> bool {
        match self {
            Self::FromPod => sender == ifindex,
            Self::ToPod | Self::FromWire => !is_local(sender),
        }
    }
}
