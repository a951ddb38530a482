//! The maps, asked one question at a time.

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::Control;
use weir_abi::flow::FlowValue;
use weir_abi::policy::{PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::reason::Reason;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;
use weir_datapath::judge::{Connection, Judgement};
use weir_datapath::tables::Tables;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::maps::lpm_trie::Key;

use crate::maps;
use crate::scratch::Scratch;
use crate::subprogram;

/// The maps that hold desired state.
pub struct Kernel;

// SAFETY of the look-ups below: an entry may change or be reused while it is read, which the kernel allows and the
// programs bear: every value is whole integers, and a connection decided on an entry of the past is decided again
// when the revision moves.
impl Tables for Kernel {
    #[inline(always)]
    fn workload(&self, address: &Address) -> Option<&Workload> {
        unsafe { maps::WORKLOADS.get(address) }
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> Option<&AddressValue> {
        unsafe { maps::ADDRESSES.get(address) }
    }

    #[inline(always)]
    fn cidr(&self, key: &CidrKey) -> Option<u32> {
        maps::CIDRS.get(trie_key(key)).copied()
    }

    #[inline(always)]
    fn range(&self, key: &CidrKey) -> Option<u32> {
        maps::NON_MASQUERADE.get(trie_key(key)).copied()
    }

    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyValue> {
        unsafe { maps::POLICY.get(key) }
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<&PortValue> {
        unsafe { maps::PORTS.get(key) }
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&ServiceValue> {
        unsafe { maps::SERVICES.get(key) }
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        maps::BACKENDS.get(index)
    }

    // Both arguments of these stand in the scratch, where the subprogram finds them.
    #[inline(always)]
    fn judge_side(&self, direction: u32, _: &Connection, _: &mut Judgement) -> Reason {
        subprogram::judge_side(direction)
    }

    #[inline(always)]
    fn merge(&self, key: PolicyKey, _: &Connection, _: &mut Judgement) -> bool {
        subprogram::merge(key)
    }
}

/// The key as aya names it, where it stands.
#[inline(always)]
fn trie_key(key: &CidrKey) -> &Key<[u32; 4]> {
    const { assert!(size_of::<CidrKey>() == size_of::<Key<[u32; 4]>>()) };
    // SAFETY: both are the prefix length and then the address, without padding; `Key` asks for no alignment.
    unsafe { &*core::ptr::from_ref(key).cast() }
}

#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the slot is this CPU's, and a tc program is not interrupted by another one on the same CPU.
    maps::SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// A copy of what is known of the pod with this address; all zero where there is none.
#[inline(always)]
pub fn pod(address: &Address) -> Workload {
    match Kernel.workload(address) {
        Some(pod) => *pod,
        None => NO_POD,
    }
}

const NO_POD: Workload = Workload {
    ifindex: 0,
    identity: 0,
    policy_set: 0,
    flags: 0,
    pod_mac: [0; 6],
    host_mac: [0; 6],
    log_allow_every: 0,
};

#[inline(always)]
pub fn control() -> Option<&'static Control> {
    maps::CONTROL.get(0)
}

/// The flow whose key stands in the scratch. What is done with it is done on the copy that [`load_flow`] makes:
/// with the pointer, the verifier would follow every path once a table.
#[inline(always)]
fn flow(s: &Scratch) -> Option<*mut FlowValue> {
    let found = if s.packet.family == 4 {
        maps::FLOWS4.get_ptr_mut(&s.key4)
    } else {
        maps::FLOWS6.get_ptr_mut(&s.key6)
    };
    if found.is_some() || !has_overflowed() {
        return found;
    }
    if s.packet.family == 4 {
        maps::SPILL4.get_ptr_mut(&s.key4)
    } else {
        maps::SPILL6.get_ptr_mut(&s.key6)
    }
}

/// Whether a flow table ever had no room, so that flows may be in the spill.
#[inline(always)]
fn has_overflowed() -> bool {
    maps::OVERFLOW.get(0).is_some_and(|last| *last != 0)
}

/// Copies the flow whose key stands in the scratch; false where there is none.
#[inline(always)]
pub fn load_flow(s: &mut Scratch) -> bool {
    let Some(value) = flow(s) else { return false };
    // SAFETY: a value of a preallocated map stays readable while the program runs.
    s.value = unsafe { *value };
    true
}

/// Writes the copy back, if the entry is still there.
#[inline(always)]
pub fn store_flow(s: &Scratch) {
    if let Some(value) = flow(s) {
        // SAFETY: as above, and writable.
        unsafe { *value = s.value };
    }
}

/// What came of adding an entry.
pub mod inserted {
    pub const YES: u32 = 0;
    /// Another flow has the key.
    pub const TAKEN: u32 = 1;
    pub const NO_ROOM: u32 = 2;
}

/// Adds an entry of the copy: to the table, or to the spill where that has no room. `flags` are the kernel's:
/// [`ANY`] or [`ONLY_NEW`].
#[inline(always)]
pub fn insert_flow(s: &Scratch, flags: u64) -> u32 {
    let result = if s.packet.family == 4 {
        maps::FLOWS4.insert(&s.key4, &s.value, flags)
    } else {
        maps::FLOWS6.insert(&s.key6, &s.value, flags)
    };
    match result {
        Ok(()) => inserted::YES,
        Err(EEXIST) => inserted::TAKEN,
        Err(_) if spill(s) => inserted::YES,
        Err(_) => inserted::NO_ROOM,
    }
}

pub const ANY: u64 = BPF_ANY as u64;
pub const ONLY_NEW: u64 = BPF_NOEXIST as u64;
const EEXIST: i32 = -17;

#[inline(always)]
fn spill(s: &Scratch) -> bool {
    if let Some(last) = maps::OVERFLOW.get_ptr_mut(0) {
        // SAFETY: a word of an array map; whichever CPU writes last is right. 0 is "never".
        unsafe { *last = s.arrival.now | (s.arrival.now == 0) as u32 };
    }
    if s.packet.family == 4 {
        maps::SPILL4.insert(&s.key4, &s.value, 0).is_ok()
    } else {
        maps::SPILL6.insert(&s.key6, &s.value, 0).is_ok()
    }
}

/// Removes the flow from wherever it is. That it is gone already is what is wanted.
#[inline(always)]
pub fn remove_flow(s: &Scratch) {
    let overflowed = has_overflowed();
    if s.packet.family == 4 {
        let _ = maps::FLOWS4.remove(&s.key4);
        if overflowed {
            let _ = maps::SPILL4.remove(&s.key4);
        }
    } else {
        let _ = maps::FLOWS6.remove(&s.key6);
        if overflowed {
            let _ = maps::SPILL6.remove(&s.key6);
        }
    }
}
