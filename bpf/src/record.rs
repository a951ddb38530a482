//! Counts what rules decide, and reports it through the ring buffer where somebody wants to hear of it.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use weir_abi::address::Address;
use weir_abi::event::{EVENT_VERSION, FlowEvent, SideVerdict, event_flags, side_verdict};
use weir_abi::policy::NO_RULE;
use weir_abi::reason::Reason;
use weir_abi::workload::{Workload, workload_flags};

use crate::scratch::{Scratch, translated};
use crate::{clock, lookup, maps, subprogram};

/// A packet was denied. Always counted, and reported if the FlowLogPolicies of the end whose policy denied it say so.
#[inline(always)]
pub fn denied(s: &Scratch, reason: Reason) {
    let by_egress = s.judgement.egress.verdict == side_verdict::DENY;
    let (rule, pod, wanted, flag) = if by_egress {
        let pod = &s.connection.source_pod;
        (
            s.judgement.egress.rule,
            pod,
            workload_flags::LOG_EGRESS_DENY,
            event_flags::LOG_EGRESS,
        )
    } else {
        let pod = &s.connection.destination_pod;
        (
            s.judgement.ingress.rule,
            pod,
            workload_flags::LOG_INGRESS_DENY,
            event_flags::LOG_INGRESS,
        )
    };
    let is_due = pod.flags & wanted != 0;
    let written = is_due && subprogram::emit(reason, flag as u32);
    subprogram::count(rule, what::DENIED | due(is_due, written));
}

/// A connection was allowed. Counted for each rule that allowed it, and reported if the FlowLogPolicies of an end
/// say so; what no rule allowed is not reported, unless a dry-run policy would deny it.
#[inline(always)]
pub fn allowed(s: &Scratch, reason: Reason) {
    let (egress, ingress) = (&s.judgement.egress, &s.judgement.ingress);
    let egress_due =
        is_worth_telling(egress) && is_due(&s.connection.source_pod, workload_flags::LOG_EGRESS_ALLOW);
    let ingress_due =
        is_worth_telling(ingress) && is_due(&s.connection.destination_pod, workload_flags::LOG_INGRESS_ALLOW);
    let flags = (egress_due as u32 * event_flags::LOG_EGRESS as u32)
        | (ingress_due as u32 * event_flags::LOG_INGRESS as u32);
    let written = flags == 0 || subprogram::emit(reason, flags);
    subprogram::count(egress.rule, what::ALLOWED | due(egress_due, written));
    subprogram::count(ingress.rule, what::ALLOWED | due(ingress_due, written));
}

#[inline(always)]
fn is_worth_telling(verdict: &SideVerdict) -> bool {
    verdict.rule != NO_RULE || verdict.dry_run_verdict == side_verdict::DENY
}

#[inline(always)]
fn is_due(pod: &Workload, wanted: u32) -> bool {
    // SAFETY: a helper without arguments.
    pod.flags & wanted != 0
        && (pod.log_allow_every <= 1 || unsafe { bpf_get_prandom_u32() } % pod.log_allow_every == 0)
}

/// What is counted of a rule's decision.
mod what {
    pub const ALLOWED: u32 = 1 << 0;
    pub const DENIED: u32 = 1 << 1;
    /// A record was due.
    pub const DUE: u32 = 1 << 2;
    /// And could not be written.
    pub const LOST: u32 = 1 << 3;
}

/// Bits of [`what`].
#[inline(always)]
fn due(due: bool, written: bool) -> u32 {
    if !due {
        0
    } else if written {
        what::DUE
    } else {
        what::DUE | what::LOST
    }
}

/// Counts a decision of a rule; `bits` of [`what`].
#[inline(always)]
pub fn count(rule: u32, bits: u32) {
    if rule == NO_RULE {
        return;
    }
    let Some(counts) = maps::RULE_COUNTS.get_ptr_mut(rule) else {
        return;
    };
    // SAFETY: the slot is this CPU's.
    let counts = unsafe { &mut *counts };
    counts.allowed += (bits & what::ALLOWED) as u64;
    counts.denied += (bits >> 1 & 1) as u64;
    counts.logged += (bits >> 2 & 1) as u64;
    counts.lost += (bits >> 3 & 1) as u64;
}

/// Writes one record; false where the budget or the ring did not have room for it.
#[inline(always)]
pub fn emit(s: &Scratch, reason: u32, flags: u32) -> bool {
    let (Some(budget), Some(control)) = (maps::LOG_BUDGET.get_ptr_mut(0), lookup::control()) else {
        return false;
    };
    // SAFETY: the slot is this CPU's.
    let budget = unsafe { &mut *budget };
    let second = clock::now();
    if budget.second != second {
        budget.second = second;
        budget.used = 0;
    }
    let sequence = budget.sequence;
    budget.sequence += 1;
    if budget.used >= control.log_budget {
        budget.lost += 1;
        return false;
    }
    let Some(mut entry) = maps::EVENTS.reserve::<FlowEvent>(0) else {
        budget.lost += 1;
        return false;
    };
    budget.used += 1;
    // Field by field: a whole struct would be built on the stack first.
    // SAFETY: the record is ours until it is submitted, and every field is written.
    unsafe {
        let event = entry.as_mut_ptr();
        (*event).version = EVENT_VERSION;
        (*event).cpu = bpf_get_smp_processor_id() as u16;
        (*event).reason = reason as u8;
        (*event).protocol = s.connection.protocol;
        (*event).detail = s.packet.detail;
        (*event).flags = flags as u8;
        (*event).sequence = sequence;
        (*event).time = bpf_ktime_get_ns();
        (*event).source = s.connection.source;
        (*event).destination = s.connection.destination;
        (*event).source_port = s.connection.source_port;
        (*event).destination_port = s.connection.destination_port;
        (*event).padding = 0;
        if s.translated & translated::DESTINATION != 0 {
            (*event).service = s.packet.destination;
            (*event).service_port = s.packet.destination_port;
        } else {
            (*event).service = Address([0; 4]);
            (*event).service_port = 0;
        }
        (*event).source_identity = s.judgement.source_identity;
        (*event).destination_identity = s.judgement.destination_identity;
        (*event).egress = s.judgement.egress;
        (*event).ingress = s.judgement.ingress;
    }
    // The reader polls: waking it once a record costs more than the record (performance notes in `docs`).
    entry.submit(BPF_RB_NO_WAKEUP as u64);
    true
}
