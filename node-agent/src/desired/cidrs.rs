//! CIDR numbers.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_abi::address::{Address, CidrKey};
use weir_abi::policy::CIDR_PEER;

use crate::contents::Contents;

pub(super) struct Cidrs {
    /// By index into the resolved CIDRs.
    pub(super) numbers: Vec<u32>,
    pub(super) entries: BTreeMap<CidrKey, u32>,
}

/// Stands for "no CIDR that a rule names": no policy entry has it.
pub(crate) const NOBODY: u32 = 0;

/// The IPv4 addresses, as they stand in the trie.
const ALL_V4: CidrKey = CidrKey {
    prefix_len: 96,
    address: [0, 0, Address::MAPPED, 0],
};

/// A CIDR keeps its number. A new one gets a number that neither a CIDR nor a policy entry has.
pub(super) fn number(cidrs: &[IpNet], actual: &Contents) -> Cidrs {
    let mut taken: BTreeSet<u32> = actual.cidrs.values().copied().collect();
    taken.extend(
        actual
            .policy
            .keys()
            .filter(|key| key.peer & CIDR_PEER != 0)
            .map(|key| key.peer & !CIDR_PEER),
    );
    let mut free = (NOBODY + 1..CIDR_PEER).filter(|number| !taken.contains(number));
    let mut result = Cidrs {
        numbers: Vec::new(),
        entries: BTreeMap::new(),
    };
    for cidr in cidrs {
        let key = cidr_key(*cidr);
        let number = match actual.cidrs.get(&key) {
            Some(number) if *number != NOBODY => *number,
            _ => free.next().unwrap_or(NOBODY),
        };
        result.numbers.push(number);
        result.entries.insert(key, number);
    }
    // An IPv6 CIDR such as `::/0` also contains the form in which IPv4 addresses stand in the trie.
    if !result.entries.is_empty() {
        result.entries.entry(ALL_V4).or_insert(NOBODY);
    }
    result
}

/// The key in the trie. Bits past the prefix are cleared.
pub(crate) fn cidr_key(cidr: IpNet) -> CidrKey {
    let base = match cidr {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    CidrKey {
        prefix_len: base + u32::from(cidr.prefix_len()),
        address: Address::from_ip(cidr.network()).0,
    }
}
