//! What is known of addresses that the address book does not have.

use std::collections::BTreeMap;

use weir_abi::address::CidrKey;
use weir_abi::config::{NON_MASQUERADE, POD_RANGE};

use super::Inputs;
use crate::network;
use crate::trie::Trie;

/// Pods speak as themselves to the pods of other nodes, whatever else is masqueraded.
pub(super) fn ranges(inputs: &Inputs<'_>) -> BTreeMap<CidrKey, u32> {
    let mut entries = network::non_masquerade(inputs.network);
    entries.extend(inputs.plan.pod_ranges.keys().map(|key| (*key, NON_MASQUERADE)));
    let pod_ranges = Trie::new(&inputs.plan.pod_ranges);
    for (key, flags) in &mut entries {
        if pod_ranges.around(*key) == Some(&true) {
            *flags |= POD_RANGE;
        }
    }
    entries
}
