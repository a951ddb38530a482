//! Global functions: the verifier looks at each once (kernel 5.6, 51c39bb1d5d1), whoever calls it and in whatever
//! state. Up to 5.12 they take the context and plain numbers only, so everything else stands in the scratch.

use aya_ebpf::bindings::__sk_buff;
use weir_abi::policy::PolicyKey;
use weir_abi::reason::Reason;
use weir_datapath::flow::Step;
use weir_datapath::judge::{self, Connection, Judgement};
use weir_datapath::parse;

use crate::hook::Hook;
use crate::lookup::{self, Kernel};
use crate::skb::Skb;
use crate::{icmp, masquerade, record, rewrite, slow};

/// Returned where there is no reason to drop.
const NONE: u32 = u8::MAX as u32;
/// Steps, as numbers that no reason has.
const FORWARD: u32 = 256;
const CLOSE: u32 = 257;
const REJUDGE: u32 = 258;
const OPEN: u32 = 259;

/// Parses the packet into the scratch.
#[inline(always)]
pub fn parse(skb: Skb) -> Result<(), Reason> {
    match weir_parse(skb.0) {
        NONE => Ok(()),
        reason => Err(reason_from(reason)),
    }
}

/// See [`parse::follow_extension_headers`].
#[inline(always)]
pub fn follow_extension_headers(skb: Skb, next_header: u64, offset: u64) -> u64 {
    weir_follow(skb.0, next_header, offset)
}

/// See [`slow::set_connection`].
#[inline(always)]
pub fn set_connection() {
    weir_set_connection();
}

/// See [`slow::find_pods`].
#[inline(always)]
pub fn find_pods() {
    weir_find_pods();
}

/// See [`icmp::error`].
#[inline(always)]
pub fn icmp_error(skb: Skb) -> Reason {
    reason_from(weir_icmp_error(skb.0))
}

/// See [`rewrite::replace_quoted`].
#[inline(always)]
pub fn replace_quoted(skb: Skb, side: u32) -> bool {
    weir_replace_quoted(skb.0, side) != 0
}

/// See [`slow::find`].
#[inline(always)]
pub fn find() -> Result<Step, Reason> {
    match weir_find() {
        FORWARD => Ok(Step::Forward),
        CLOSE => Ok(Step::Close),
        REJUDGE => Ok(Step::Rejudge),
        OPEN => Ok(Step::Open),
        reason => Err(reason_from(reason)),
    }
}

/// See [`slow::known`].
#[inline(always)]
pub fn known(skb: Skb) -> Reason {
    reason_from(weir_known(skb.0))
}

/// See [`slow::rejudge`].
#[inline(always)]
pub fn rejudge() -> Reason {
    reason_from(weir_rejudge())
}

/// See [`slow::open`].
#[inline(always)]
pub fn open(hook: Hook) -> Reason {
    reason_from(weir_open(hook as u32))
}

/// See [`slow::admit`].
#[inline(always)]
pub fn admit(skb: Skb, reason: Reason) -> Reason {
    reason_from(weir_admit(skb.0, reason as u32))
}

/// Judges the scratch's connection.
#[inline(always)]
pub fn judge() -> Reason {
    reason_from(weir_judge())
}

#[inline(always)]
pub fn judge_side(direction: u32) -> Reason {
    reason_from(weir_judge_side(direction))
}

#[inline(always)]
pub fn merge(key: PolicyKey) -> bool {
    weir_merge(key.side, key.peer) != 0
}

/// See [`record::emit`].
#[inline(always)]
pub fn emit(reason: Reason, flags: u32) -> bool {
    weir_emit(reason as u32, flags) != 0
}

/// See [`rewrite::replace`].
#[inline(always)]
pub fn replace(skb: Skb, side: u32) -> bool {
    weir_replace(skb.0, side) != 0
}

/// See [`rewrite::find_fields`].
#[inline(always)]
pub fn find_fields(side: u32) {
    weir_find_fields(side);
}

/// See [`rewrite::replace_ends`].
#[inline(always)]
pub fn replace_ends(skb: Skb) -> bool {
    weir_replace_ends(skb.0) != 0
}

/// See [`slow::key`].
#[inline(always)]
pub fn key() -> bool {
    weir_key() != 0
}

/// See [`lookup::load_flow`].
#[inline(always)]
pub fn load_flow() -> bool {
    weir_load_flow() != 0
}

/// See [`lookup::store_flow`].
#[inline(always)]
pub fn store_flow() {
    weir_store_flow();
}

/// See [`lookup::insert_flow`].
#[inline(always)]
pub fn insert_flow() -> bool {
    weir_insert_flow(lookup::ANY) == lookup::inserted::YES
}

/// As [`insert_flow`], if nobody has the key; one of [`lookup::inserted`].
#[inline(always)]
pub fn claim_flow() -> u32 {
    weir_insert_flow(lookup::ONLY_NEW)
}

/// See [`lookup::remove_flow`].
#[inline(always)]
pub fn remove_flow() {
    weir_remove_flow();
}

/// See [`rewrite::remember`].
#[inline(always)]
pub fn remember(flags: u32) -> Option<Reason> {
    refusal_from(weir_remember(flags))
}

/// See [`rewrite::remember_way_back`].
#[inline(always)]
pub fn remember_way_back() -> Option<Reason> {
    if weir_remember_way_back() != 0 {
        None
    } else {
        Some(Reason::FlowTableFull)
    }
}

/// See [`rewrite::fill_way_back`].
#[inline(always)]
pub fn fill_way_back(from_low: bool) {
    weir_fill_way_back(from_low as u32);
}

/// See [`masquerade::choose`].
#[inline(always)]
pub fn choose_masquerade() {
    weir_choose_masquerade();
}

/// See [`masquerade::claim`].
#[inline(always)]
pub fn claim_port() -> Option<Reason> {
    refusal_from(weir_claim_port())
}

/// See [`masquerade::try_ports`].
#[inline(always)]
pub fn try_ports(number: u32) -> u32 {
    weir_try_ports(number)
}

/// See [`masquerade::try_port`].
#[inline(always)]
pub fn try_port(number: u32) -> u32 {
    weir_try_port(number)
}

/// See [`masquerade::pick_port`].
#[inline(always)]
pub fn pick_port(number: u32) -> bool {
    weir_pick_port(number) != 0
}

/// See [`rewrite::share`].
#[inline(always)]
pub fn share() {
    weir_share();
}

/// See [`record::denied`].
#[inline(always)]
pub fn denied(reason: Reason) {
    weir_denied(reason as u32);
}

/// See [`record::allowed`].
#[inline(always)]
pub fn allowed(reason: Reason) {
    weir_allowed(reason as u32);
}

/// See [`record::count`].
#[inline(always)]
pub fn count(rule: u32, bits: u32) {
    weir_count(rule, bits);
}

/// See [`slow::set_decision`].
#[inline(always)]
pub fn set_decision(flags: u32) {
    weir_set_decision(flags);
}

#[inline(always)]
fn refusal(reason: Option<Reason>) -> u32 {
    reason.map_or(NONE, |reason| reason as u32)
}

#[inline(always)]
fn refusal_from(number: u32) -> Option<Reason> {
    if number == NONE {
        None
    } else {
        Some(reason_from(number))
    }
}

#[inline(always)]
fn reason_from(number: u32) -> Reason {
    // A match over the table would be a branch a row. SAFETY: the number was made from a `Reason` by the functions
    // below, and by nobody else.
    unsafe { core::mem::transmute::<u8, Reason>(number as u8) }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_parse(skb: *mut __sk_buff) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    match parse::parse(&Skb(skb), &mut s.packet) {
        Ok(()) => NONE,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_follow(skb: *mut __sk_buff, next_header: u64, offset: u64) -> u64 {
    parse::follow_extension_headers(&Skb(skb), next_header, offset)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_set_connection() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    slow::set_connection(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_find_pods() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    slow::find_pods(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_icmp_error(skb: *mut __sk_buff) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    icmp::error(Skb(skb), s) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_replace_quoted(skb: *mut __sk_buff, side: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::replace_quoted(Skb(skb), s, side) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_find() -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    match slow::find(s) {
        Ok(Step::Forward) => FORWARD,
        Ok(Step::Close) => CLOSE,
        Ok(Step::Rejudge) => REJUDGE,
        Ok(Step::Open) => OPEN,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_known(skb: *mut __sk_buff) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    slow::known(Skb(skb), s) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_rejudge() -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    slow::rejudge(s) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_open(hook: u32) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    slow::open(s, Hook::from_number(hook)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_admit(skb: *mut __sk_buff, reason: u32) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    slow::admit(Skb(skb), s, reason_from(reason)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_judge() -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    judge::judge(&Kernel, &s.connection, &mut s.judgement) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_judge_side(direction: u32) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    let (connection, judgement): (&Connection, &mut Judgement) = (&s.connection, &mut s.judgement);
    judge::judge_side(&Kernel, direction, connection, judgement) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_merge(side: u32, peer: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    judge::merge(&Kernel, PolicyKey { side, peer }, &s.connection, &mut s.judgement) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_emit(reason: u32, flags: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    record::emit(s, reason, flags) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_replace(skb: *mut __sk_buff, side: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::replace(Skb(skb), s, side) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_find_fields(side: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::find_fields(s, side);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_replace_ends(skb: *mut __sk_buff) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::replace_ends(Skb(skb), s) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_key() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    slow::key(s)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_load_flow() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    lookup::load_flow(s) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_store_flow() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    lookup::store_flow(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_insert_flow(flags: u64) -> u32 {
    let Some(s) = lookup::scratch() else {
        return lookup::inserted::NO_ROOM;
    };
    lookup::insert_flow(s, flags)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_remove_flow() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    lookup::remove_flow(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_remember(flags: u32) -> u32 {
    let Some(s) = lookup::scratch() else {
        return Reason::Internal as u32;
    };
    refusal(rewrite::remember(s, flags))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_remember_way_back() -> u32 {
    rewrite::remember_way_back() as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_fill_way_back(from_low: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::fill_way_back(s, from_low != 0);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_choose_masquerade() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    masquerade::choose(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_claim_port() -> u32 {
    refusal(masquerade::claim())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_try_ports(number: u32) -> u32 {
    masquerade::try_ports(number)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_try_port(number: u32) -> u32 {
    let Some(s) = lookup::scratch() else {
        return masquerade::attempt::NO_CHOICE;
    };
    masquerade::try_port(s, number)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_pick_port(number: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    masquerade::pick_port(s, number) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_share() -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    rewrite::share(s);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_denied(reason: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    record::denied(s, reason_from(reason));
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_allowed(reason: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    record::allowed(s, reason_from(reason));
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_count(rule: u32, bits: u32) -> u32 {
    record::count(rule, bits);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_set_decision(flags: u32) -> u32 {
    let Some(s) = lookup::scratch() else { return 0 };
    slow::set_decision(s, flags);
    0
}
