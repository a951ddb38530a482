//! What the `explain` program answers.

use crate::address::Address;
use crate::event::SideVerdict;

/// Written over the packet that was asked about, from its Ethernet header on. Nothing else is written anywhere.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Explanation {
    /// A [`Reason`](crate::reason::Reason) number.
    pub reason: u8,
    /// 1 where a valid flow entry exists and would have decided.
    pub has_flow: u8,
    pub padding: [u8; 2],
    pub source_identity: u32,
    pub destination_identity: u32,
    /// Network byte order: the destination after Service translation.
    pub destination_port: u16,
    pub padding2: u16,
    pub destination: Address,
    pub egress: SideVerdict,
    pub ingress: SideVerdict,
}
