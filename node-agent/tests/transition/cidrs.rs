//! The order in which CIDRs come and go.

use weir_abi::address::{Address, CidrKey};
use weir_agent::contents::Contents;
use weir_agent::transition::{Step, transition};

/// On the way, an address is in no CIDR that it is in neither before nor after; an IPv4 address never in an IPv6 one.
#[test]
fn longer_cidrs_come_first_and_go_last() {
    let v6 = |prefix_len, first| CidrKey {
        prefix_len,
        address: [u32::to_be(first), 0, 0, 0],
    };
    let all_v4 = CidrKey {
        prefix_len: 96,
        address: [0, 0, Address::MAPPED, 0],
    };
    let nested = [v6(0, 0), v6(16, 0xfd00_0000), v6(32, 0xfd00_0001), all_v4];
    let contents = Contents {
        cidrs: nested.into_iter().zip([4, 3, 2, 0]).collect(),
        ..Contents::default()
    };
    let lengths = |steps: Vec<Step>| -> Vec<u32> {
        let cidrs = steps.into_iter().flat_map(|step| {
            if let Step::WriteCidrs(entries) = step {
                entries.into_iter().map(|(key, _)| key).collect()
            } else if let Step::DeleteCidrs(keys) = step {
                keys
            } else {
                assert_eq!(step, Step::RaiseRevision);
                Vec::new()
            }
        });
        cidrs.map(|key| key.prefix_len).collect()
    };
    assert_eq!(
        lengths(transition(&Contents::default(), &contents)),
        [96, 32, 16, 0]
    );
    assert_eq!(
        lengths(transition(&contents, &Contents::default())),
        [0, 16, 32, 96]
    );
}
