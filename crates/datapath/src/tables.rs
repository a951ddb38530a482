//! Where the decision looks things up.

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::policy::{PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::reason::Reason;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;

use crate::judge::{self, Connection, Judgement};

/// The maps that hold desired state, read-only. One question a method, none decides.
pub trait Tables {
    fn workload(&self, address: &Address) -> Option<&Workload>;
    fn address(&self, address: &Address) -> Option<&AddressValue>;
    /// Number of the longest CIDR that contains the key's address.
    fn cidr(&self, key: &CidrKey) -> Option<u32>;
    /// Value of the longest range around the key's address that is known of beside the addresses: bits of
    /// [`NON_MASQUERADE`](weir_abi::config::NON_MASQUERADE) and [`POD_RANGE`](weir_abi::config::POD_RANGE).
    fn range(&self, key: &CidrKey) -> Option<u32>;
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyValue>;
    fn port(&self, key: &PortKey) -> Option<&PortValue>;
    fn service(&self, key: &ServiceKey) -> Option<&ServiceValue>;
    fn backend(&self, index: u32) -> Option<&Backend>;

    /// Does [`judge::judge_side`]. A seam: the eBPF programs put a function of its own here, so that the verifier
    /// looks at it once and not once a caller.
    #[inline(always)]
    fn judge_side(&self, direction: u32, connection: &Connection, judgement: &mut Judgement) -> Reason
    where
        Self: Sized,
    {
        judge::judge_side(self, direction, connection, judgement)
    }

    /// Does [`judge::merge`]. A seam like [`judge_side`](Self::judge_side).
    #[inline(always)]
    fn merge(&self, key: PolicyKey, connection: &Connection, judgement: &mut Judgement) -> bool
    where
        Self: Sized,
    {
        judge::merge(self, key, connection, judgement)
    }
}
