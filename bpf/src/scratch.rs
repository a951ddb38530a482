//! What one packet needs while it is decided. The stack has 512 bytes and is shared by the whole call chain.

use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue, FragmentKey, FragmentValue, Hop};
use weir_datapath::flow::Arrival;
use weir_datapath::judge::{Connection, Judgement};
use weir_datapath::packet::Packet;

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
    /// 1 where the connection's destination is a Service's backend.
    pub translated: u32,
}
