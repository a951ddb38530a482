//! What one packet needs while it is decided. The stack has 512 bytes and is shared by the whole call chain.

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;

use weir_abi::address::Address;
use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue, FragmentKey, FragmentValue, Hop};
use weir_datapath::flow::Arrival;
use weir_datapath::judge::{Connection, Judgement};
use weir_datapath::packet::Packet;

use crate::rewrite::Fields;

#[repr(C, align(8))]
pub struct Scratch {
    pub packet: Packet,
    /// The connection to judge.
    pub connection: Connection,
    pub judgement: Judgement,
    /// The flow entry: a copy of the one in the table, or the one to be.
    pub value: FlowValue,
    pub key4: FlowKey4,
    pub key6: FlowKey6,
    pub fragment_key: FragmentKey,
    pub fragment_value: FragmentValue,
    /// How the packet meets its flow entry, and the flags that the entry is to have.
    pub arrival: Arrival,
    pub flags: u32,
    /// Where the packet goes.
    pub hop: Hop,
    /// Bits of [`translated`].
    pub translated: u32,
    /// What takes the place of the connection's source, where that is translated.
    pub new_source: Address,
    pub new_source_port: u16,
    pub padding: [u16; 3],
    /// Where a translation changes the transport header.
    pub fields: Fields,
    /// The packet's own key, while another flow's stands in `key4` and `key6`.
    pub first_key4: FlowKey4,
    pub first_key6: FlowKey6,
    /// Subprograms find the scratch for themselves and change it while their callers hold a reference to it, so the
    /// compiler must not take what it has read for what is still there. It does not where a type is not `Unpin`
    /// (`&mut`) or has a cell in it (`&`).
    pub pinned: PhantomPinned,
    pub cell: UnsafeCell<()>,
}

// SAFETY: every CPU has a scratch of its own.
unsafe impl Sync for Scratch {}

/// What of the connection becomes another on its way.
pub mod translated {
    /// A Service's backend stands in place of the Service.
    pub const DESTINATION: u32 = 1 << 0;
    /// The node's address stands in place of the pod's.
    pub const SOURCE: u32 = 1 << 1;
}
