//! What would happen to a packet? Attached to nothing, writes to no map but the scratch: the answer goes over the
//! packet itself.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_skb_store_bytes;
use aya_ebpf::programs::TcContext;
use weir_abi::explain::Explanation;
use weir_abi::reason::Reason;
use weir_datapath::flow;
use weir_datapath::judge::Judgement;
use weir_datapath::service::{self, Destination};

use crate::lookup::{self, Kernel};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::{clock, slow, subprogram};

/// Judges the packet as the first one of its connection, sent by its source address. Of a Service's backends the
/// first is taken. `TC_ACT_SHOT` where no answer could be given.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let skb = Skb::of(ctx);
    let Some(s) = lookup::scratch() else {
        return TC_ACT_SHOT;
    };
    s.judgement = Judgement::NONE;
    let (reason, has_flow) = match subprogram::parse(skb) {
        Ok(()) => {
            subprogram::set_connection();
            let has_flow = has_flow(s);
            (judge(s), has_flow)
        }
        Err(reason) => (reason, false),
    };
    let answer = Explanation {
        reason: reason as u8,
        has_flow: has_flow as u8,
        padding: [0; 2],
        source_identity: s.judgement.source_identity,
        destination_identity: s.judgement.destination_identity,
        destination_port: s.connection.destination_port,
        padding2: 0,
        destination: s.connection.destination,
        egress: s.judgement.egress,
        ingress: s.judgement.ingress,
    };
    // SAFETY: the helper checks that the packet is long enough.
    let stored = unsafe {
        bpf_skb_store_bytes(
            skb.0.cast(),
            0,
            (&raw const answer).cast(),
            size_of::<Explanation>() as u32,
            0,
        )
    };
    if stored == 0 { TC_ACT_OK } else { TC_ACT_SHOT }
}

#[inline(always)]
fn judge(s: &mut Scratch) -> Reason {
    let c = &s.connection;
    if c.is_from_pod() {
        match service::resolve(&Kernel, &c.destination, c.destination_port, c.protocol, 0) {
            Destination::Plain => {}
            Destination::NoBackend => return Reason::NoBackend,
            Destination::Backend(backend) => slow::translate(s, &backend.address, backend.port),
        }
    }
    subprogram::judge()
}

/// Whether an entry of the policy in force exists and is not idle.
#[inline(always)]
fn has_flow(s: &mut Scratch) -> bool {
    let Some(control) = lookup::control() else {
        return false;
    };
    let _ = subprogram::key();
    subprogram::load_flow()
        && s.value.revision == control.revision
        && !flow::is_idle(&s.value, s.packet.protocol, clock::now())
}
