//! The maps in memory do what the kernel's do, and fail where they are told to.

mod judging;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use judging::host::{Host, address};
use judging::memory::{Failure, MemoryMaps};
use weir_abi::address::{Address, CidrKey};
use weir_abi::config::Control;
use weir_abi::service::Backend;
use weir_agent::contents::Contents;
use weir_agent::table::{Backends, Maps as _};
use weir_datapath::tables::Tables as _;

fn backend(port: u16) -> Backend {
    Backend {
        port,
        ..Backend::default()
    }
}

#[test]
fn a_call_fails_after_as_many_entries_as_wanted() {
    let entries = [(1, backend(1)), (2, backend(2)), (3, backend(3))];
    for done in 0..=entries.len() {
        let mut maps = MemoryMaps::default();
        maps.fail(Some(Failure {
            call: 1,
            entries: done,
        }));
        assert_eq!(maps.read::<Backends>().expect("the first call"), BTreeMap::new());
        let error = maps.write::<Backends>(&entries).expect_err("the second call");
        assert_eq!(error.to_string(), "map backends: the test wants a failure");
        let first = entries[..done].iter().copied().collect();
        assert_eq!(maps.read::<Backends>().expect("a call after"), first);
        assert_eq!(maps.calls(), 3);

        maps.fail(Some(Failure { call: 0, entries: 1 }));
        maps.delete::<Backends>(&[1, 2]).expect_err("the first call");
        let first = entries[..done]
            .iter()
            .copied()
            .filter(|(key, _)| *key != 1)
            .collect();
        assert_eq!(
            maps.contents,
            Contents {
                backends: first,
                ..Contents::default()
            }
        );
    }
}

#[test]
fn reads_and_the_revision_fail_too() {
    let mut maps = MemoryMaps::default();
    let control = Control {
        revision: 3,
        log_budget: 4,
    };
    maps.fail(Some(Failure { call: 0, entries: 0 }));
    maps.set_control(control).expect_err("the first call");
    assert_eq!(maps.control().expect("the second"), Control::default());
    maps.fail(Some(Failure { call: 1, entries: 9 }));
    maps.set_control(control).expect("the first call");
    maps.control().expect_err("the second");
    assert_eq!(maps.control().expect("the third"), control);
    maps.fail(Some(Failure { call: 0, entries: 0 }));
    maps.read::<Backends>().expect_err("the first call");
    maps.fail(None);
    maps.read::<Backends>().expect("no failure is wanted");
}

#[test]
fn the_longest_cidr_is_found() {
    let cidrs = [
        "::/0",
        "fd00::/16",
        "fd00:0:0:1::/64",
        "::ffff:0:0/96",
        "10.0.0.0/8",
        "10.0.0.4/30",
        "10.0.0.5/32",
    ];
    let contents = Contents {
        cidrs: cidrs
            .into_iter()
            .zip(0..)
            .map(|(cidr, number)| (key(cidr), number))
            .collect(),
        ..Contents::default()
    };
    let found = |text: &str| {
        Host(&contents).cidr(&CidrKey {
            prefix_len: 128,
            address: Address::from_ip(address(text)).0,
        })
    };
    let expected = [
        ("2001:db8::1", 0),
        ("fd00:0:0:2::1", 1),
        ("fd00:0:0:1::1", 2),
        ("192.0.2.1", 3),
        ("10.1.0.0", 4),
        ("10.0.0.6", 5),
        ("10.0.0.5", 6),
    ];
    for (text, number) in expected {
        assert_eq!(found(text), Some(number), "{text}");
    }
    assert_eq!(
        Host(&Contents::default()).cidr(&CidrKey {
            prefix_len: 128,
            address: [0; 4]
        }),
        None
    );
}

fn key(text: &str) -> CidrKey {
    let cidr: IpNet = text.parse().expect("a CIDR");
    let base = if matches!(cidr.addr(), IpAddr::V4(_)) {
        96
    } else {
        0
    };
    CidrKey {
        prefix_len: base + u32::from(cidr.prefix_len()),
        address: Address::from_ip(cidr.network()).0,
    }
}
