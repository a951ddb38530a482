//! Longest matches among CIDRs, as the kernel's LPM tries find them.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::address::{Address, AddressValue, CidrKey, UNKNOWN_IDENTITY, UNKNOWN_POD};
use weir_abi::config::POD_RANGE;

use crate::contents::Contents;

/// Few lengths occur, and only those are asked for.
#[derive(Debug)]
pub(crate) struct Trie<'a, V> {
    entries: &'a BTreeMap<CidrKey, V>,
    lengths: BTreeSet<u32>,
}

impl<'a, V> Trie<'a, V> {
    pub(crate) fn new(entries: &'a BTreeMap<CidrKey, V>) -> Self {
        Self {
            entries,
            lengths: entries.keys().map(|key| key.prefix_len).collect(),
        }
    }

    /// The value of the longest CIDR that contains `key`, itself included.
    pub(crate) fn around(&self, key: CidrKey) -> Option<&'a V> {
        let address = u128::from_be_bytes(Address(key.address).octets());
        self.lengths
            .range(..=key.prefix_len)
            .rev()
            .find_map(|&prefix_len| {
                let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
                let octets = (address & mask).to_be_bytes();
                self.entries.get(&CidrKey {
                    prefix_len,
                    address: Address::from_octets(octets).0,
                })
            })
    }
}

/// The CIDR that is this address alone.
pub(crate) fn host(address: Address) -> CidrKey {
    CidrKey {
        prefix_len: 128,
        address: address.0,
    }
}

/// Who has which identity, by the contents of the maps.
#[derive(Debug)]
pub(crate) struct Identities<'a> {
    addresses: &'a BTreeMap<Address, AddressValue>,
    ranges: Trie<'a, u32>,
}

impl<'a> Identities<'a> {
    pub(crate) fn new(contents: &'a Contents) -> Self {
        Self {
            addresses: &contents.addresses,
            ranges: Trie::new(&contents.non_masquerade),
        }
    }

    pub(crate) fn of(&self, address: Address) -> u32 {
        let own = self
            .addresses
            .get(&address)
            .map_or(UNKNOWN_IDENTITY, |value| value.identity);
        match self.ranges.around(host(address)) {
            Some(range) if own == UNKNOWN_IDENTITY && range & POD_RANGE != 0 => UNKNOWN_POD,
            Some(_) | None => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::cidr_key;

    #[test]
    fn the_longest_that_contains_it() {
        let key = |text: &str| cidr_key(text.parse().expect("a CIDR"));
        let entries = BTreeMap::from([
            (key("10.0.0.0/8"), 8),
            (key("10.1.0.0/16"), 16),
            (key("::/0"), 0),
            (key("10.1.2.3/32"), 32),
        ]);
        let trie = Trie::new(&entries);
        let around = |text| trie.around(key(text)).copied();
        assert_eq!(around("10.1.2.3/32"), Some(32));
        assert_eq!(around("10.1.2.0/24"), Some(16));
        assert_eq!(around("10.2.0.1/32"), Some(8));
        // An IPv6 CIDR that contains the form in which IPv4 addresses stand.
        assert_eq!(around("192.0.2.1/32"), Some(0));
        assert_eq!(
            Trie::new(&BTreeMap::<CidrKey, u8>::new()).around(key("::/0")),
            None
        );
    }
}
