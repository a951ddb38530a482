//! Every map, and nothing else. The agent sets the capacities of those that are sized to the load before it loads
//! the object; what stands here serves the tests.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use weir_abi::address::{Address, AddressValue};
use weir_abi::config::{Control, LogBudget, Masquerade};
use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue, FragmentKey, FragmentValue};
use weir_abi::policy::{NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue, RuleCount};
use weir_abi::reason::REASONS;
use weir_abi::service::{Backend, ServiceKey, ServiceValue, SocketKey, SocketValue};
use weir_abi::workload::Workload;

use crate::scratch::Scratch;

/// Preallocated, and without eviction: what is in stays in, and an insert costs no allocation.
#[map(name = "flows4")]
pub static FLOWS4: HashMap<FlowKey4, FlowValue> = HashMap::with_max_entries(131_072, 0);
#[map(name = "flows6")]
pub static FLOWS6: HashMap<FlowKey6, FlowValue> = HashMap::with_max_entries(131_072, 0);
/// Flows for which the tables had no room. Here the least recently used give way.
#[map(name = "spill4")]
pub static SPILL4: LruHashMap<FlowKey4, FlowValue> = LruHashMap::with_max_entries(16_384, 0);
#[map(name = "spill6")]
pub static SPILL6: LruHashMap<FlowKey6, FlowValue> = LruHashMap::with_max_entries(16_384, 0);
#[map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(8_192, 0);

#[map(name = "workloads")]
pub static WORKLOADS: HashMap<Address, Workload> = HashMap::with_max_entries(1_024, BPF_F_NO_PREALLOC);
#[map(name = "addresses")]
pub static ADDRESSES: HashMap<Address, AddressValue> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// Longest matching CIDR to its number.
#[map(name = "cidrs")]
pub static CIDRS: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map(name = "policy")]
pub static POLICY: HashMap<PolicyKey, PolicyValue> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map(name = "ports")]
pub static PORTS: HashMap<PortKey, PortValue> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map(name = "services")]
pub static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map(name = "backends")]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(16_384, 0);
#[map(name = "sockets")]
pub static SOCKETS: LruHashMap<SocketKey, SocketValue> = LruHashMap::with_max_entries(16_384, 0);

/// Destinations outside that pods speak to as themselves.
#[map(name = "non_masquerade")]
pub static NON_MASQUERADE: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(1_024, BPF_F_NO_PREALLOC);
#[map(name = "masquerade")]
pub static MASQUERADE: Array<Masquerade> = Array::with_max_entries(1, 0);

#[map(name = "control")]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);
#[map(name = "overflow")]
pub static OVERFLOW: Array<u32> = Array::with_max_entries(1, 0);

#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);
#[map(name = "rule_counts")]
pub static RULE_COUNTS: PerCpuArray<RuleCount> = PerCpuArray::with_max_entries(4_096, 0);
#[map(name = "log_budget")]
pub static LOG_BUDGET: PerCpuArray<LogBudget> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The `fast` and the `slow` program, which the hooks jump to. The kernel empties the array when no file descriptor and no pin is left, so
/// it is pinned for as long as its programs are attached.
#[map(name = "jump")]
pub static JUMP: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Read and written by the agent alone.
#[map(name = "numbers")]
pub static NUMBERS: HashMap<NumberKey, NumberValue> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Not pinned: its contents end with the packet.
#[map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
