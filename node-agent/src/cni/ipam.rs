//! Choosing a pod's addresses. Pure: what is taken is an argument.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::CniError;

/// Why there is no address. It may be over when a pod ends or the node gets another range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("the node has no podCIDR yet")]
    NoPodCidr,
    #[error("every address of the node's podCIDRs {} is taken", list(.0))]
    Full(Vec<IpNet>),
}

/// One address of each family that `pod_cidrs` have, in the order in which the families first stand there.
///
/// Never given are a range's first address (the network's, and IPv6's subnet-router anycast, RFC 4291, section
/// 2.6.1), its second, which is the gateway of other network plugins and may be left on the node by one, and IPv4's
/// broadcast address. Of several ranges of a family, one is used up before the next.
///
/// An address that was given up lately may still be in somebody's cache, so those come last: first the lowest address
/// that is neither in use nor in `recently_freed`, and then the longest freed. `recently_freed` is sorted by time,
/// oldest first.
pub fn allocate(
    pod_cidrs: &[IpNet],
    in_use: &BTreeSet<IpAddr>,
    recently_freed: &[IpAddr],
) -> Result<Vec<IpAddr>, Exhausted> {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = pod_cidrs.iter().partition(|cidr| cidr.addr().is_ipv4());
    let mut families = vec![v4, v6];
    if pod_cidrs.first().is_some_and(|first| first.addr().is_ipv6()) {
        families.reverse();
    }
    families.retain(|cidrs| !cidrs.is_empty());
    if families.is_empty() {
        return Err(Exhausted::NoPodCidr);
    }
    families
        .into_iter()
        .map(|cidrs| choose(&cidrs, in_use, recently_freed).ok_or(Exhausted::Full(cidrs)))
        .collect()
}

fn choose(cidrs: &[IpNet], in_use: &BTreeSet<IpAddr>, recently_freed: &[IpAddr]) -> Option<IpAddr> {
    let freed: BTreeSet<IpAddr> = recently_freed.iter().copied().collect();
    let fresh = cidrs
        .iter()
        .flat_map(usable)
        .find(|address| !in_use.contains(address) && !freed.contains(address));
    fresh.or_else(|| {
        recently_freed
            .iter()
            .copied()
            .find(|address| !in_use.contains(address) && cidrs.iter().any(|cidr| is_usable(cidr, *address)))
    })
}

/// First and last address that a pod may have; none in a range that is too small.
fn bounds(cidr: &IpNet) -> Option<(IpAddr, IpAddr)> {
    match cidr {
        IpNet::V4(net) => bounds_v4(net).map(|(first, last)| (first.into(), last.into())),
        IpNet::V6(net) => bounds_v6(net).map(|(first, last)| (first.into(), last.into())),
    }
}

fn bounds_v4(net: &Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let first = u32::from(net.network()).checked_add(2)?;
    let last = u32::from(net.broadcast()).checked_sub(1)?;
    (first <= last).then(|| (first.into(), last.into()))
}

fn bounds_v6(net: &Ipv6Net) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let first = u128::from(net.network()).checked_add(2)?;
    let last = u128::from(net.broadcast());
    (first <= last).then(|| (first.into(), last.into()))
}

fn is_usable(cidr: &IpNet, address: IpAddr) -> bool {
    bounds(cidr).is_some_and(|(first, last)| first <= address && address <= last)
}

/// Ascending. An IPv6 range is not walked further than there are addresses in use.
fn usable(cidr: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match bounds(cidr) {
        Some((IpAddr::V4(first), IpAddr::V4(last))) => {
            Box::new((u32::from(first)..=u32::from(last)).map(|bits| Ipv4Addr::from(bits).into()))
        }
        Some((IpAddr::V6(first), IpAddr::V6(last))) => {
            Box::new((u128::from(first)..=u128::from(last)).map(|bits| Ipv6Addr::from(bits).into()))
        }
        _ => Box::new(std::iter::empty()),
    }
}

impl From<Exhausted> for CniError {
    fn from(exhausted: Exhausted) -> CniError {
        CniError::try_again_later(exhausted.to_string())
    }
}

fn list(cidrs: &[IpNet]) -> String {
    let texts: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a range")).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    fn run(ranges: &[&str], in_use: &[&str], freed: &[&str]) -> Result<Vec<IpAddr>, Exhausted> {
        allocate(
            &cidrs(ranges),
            &addresses(in_use).into_iter().collect(),
            &addresses(freed),
        )
    }

    #[test]
    fn gives_one_address_of_each_family_in_the_ranges_order() {
        let ranges = ["10.0.3.0/24", "fd00:3::/64"];
        assert_eq!(run(&ranges, &[], &[]), Ok(addresses(&["10.0.3.2", "fd00:3::2"])));
        assert_eq!(
            run(&[ranges[1], ranges[0]], &["10.0.3.2"], &[]),
            Ok(addresses(&["fd00:3::2", "10.0.3.3"]))
        );
        assert_eq!(run(&ranges[1..], &[], &[]), Ok(addresses(&["fd00:3::2"])));
    }

    #[test]
    fn takes_the_bits_behind_the_prefix_for_nothing() {
        assert_eq!(run(&["10.0.3.77/24"], &[], &[]), Ok(addresses(&["10.0.3.2"])));
    }

    #[test]
    fn what_was_freed_comes_last_and_oldest_first() {
        let range = ["10.0.0.0/29"];
        let freed = ["10.0.0.4", "10.0.0.2", "192.0.2.1"];
        let mut in_use = vec!["10.0.0.3"];
        for expected in ["10.0.0.5", "10.0.0.6", "10.0.0.4", "10.0.0.2"] {
            assert_eq!(run(&range, &in_use, &freed), Ok(addresses(&[expected])));
            in_use.push(expected);
        }
        let full = Exhausted::Full(cidrs(&range));
        assert_eq!(
            full.to_string(),
            "every address of the node's podCIDRs 10.0.0.0/29 is taken"
        );
        assert_eq!(run(&range, &in_use, &freed), Err(full));
    }

    #[test]
    fn goes_on_in_the_next_range_of_a_family() {
        let ranges = ["10.0.0.0/30", "fd00::/64", "10.9.0.0/30"];
        assert_eq!(run(&ranges, &[], &[]), Ok(addresses(&["10.0.0.2", "fd00::2"])));
        assert_eq!(
            run(&ranges, &["10.0.0.2"], &[]),
            Ok(addresses(&["10.9.0.2", "fd00::2"]))
        );
        assert_eq!(
            run(&ranges, &["10.0.0.2", "10.9.0.2"], &[]),
            Err(Exhausted::Full(cidrs(&["10.0.0.0/30", "10.9.0.0/30"])))
        );
    }

    #[test]
    fn a_range_that_is_too_small_has_none() {
        for range in [
            "10.0.0.0/31",
            "255.255.255.255/32",
            "fd00::/127",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ] {
            assert_eq!(
                run(&[range], &[], &[]),
                Err(Exhausted::Full(cidrs(&[range]))),
                "{range}"
            );
        }
        assert_eq!(run(&["10.0.0.0/30"], &[], &[]), Ok(addresses(&["10.0.0.2"])));
        assert_eq!(
            run(&["fd00::/126"], &["fd00::2"], &[]),
            Ok(addresses(&["fd00::3"]))
        );
        assert_eq!(run(&["0.0.0.0/0"], &[], &[]), Ok(addresses(&["0.0.0.2"])));
    }

    #[test]
    fn without_a_range_there_is_nothing_to_give() {
        assert_eq!(run(&[], &[], &[]), Err(Exhausted::NoPodCidr));
        assert_eq!(
            CniError::from(Exhausted::NoPodCidr),
            CniError::new(11, "the node has no podCIDR yet")
        );
    }

    /// A range of 4 to 256 addresses, of either family, and near the ends of the address space too.
    fn range() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 24..=30u8)
            .prop_map(|(bits, length)| IpNet::new_assert(Ipv4Addr::from(bits).into(), length));
        let v6 = (any::<u128>(), 120..=126u8)
            .prop_map(|(bits, length)| IpNet::new_assert(Ipv6Addr::from(bits).into(), length));
        prop_oneof![v4, v6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pods come and go; whatever happens, no address is given twice, none is given that may not be, an address
        /// comes back only after all that were freed before it, and the ranges are used to the last address.
        #[test]
        fn over_a_nodes_life(
            ranges in proptest::collection::vec(range(), 1..4),
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..600),
        ) {
            let mut pods: Vec<Vec<IpAddr>> = Vec::new();
            let mut in_use: BTreeSet<IpAddr> = BTreeSet::new();
            let mut freed: VecDeque<IpAddr> = VecDeque::new();
            for (start, index) in steps {
                if !start && !pods.is_empty() {
                    for address in pods.swap_remove(index.index(pods.len())) {
                        in_use.remove(&address);
                        freed.push_back(address);
                    }
                    continue;
                }
                let known = freed.make_contiguous();
                match allocate(&ranges, &in_use, known) {
                    Ok(given) => {
                        let families: BTreeSet<bool> = given.iter().map(IpAddr::is_ipv4).collect();
                        let wanted: BTreeSet<bool> = ranges.iter().map(|range| range.addr().is_ipv4()).collect();
                        prop_assert_eq!(families, wanted);
                        for address in &given {
                            prop_assert!(!in_use.contains(address), "{address} is given twice");
                            let home = ranges.iter().find(|range| range.contains(address));
                            prop_assert!(home.is_some(), "{address} is in no range");
                            prop_assert!(may_be_given(&ranges, *address), "{address} is not to be given");
                            if let Some(at) = known.iter().position(|one| one == address) {
                                let older = &known[..at];
                                prop_assert!(older.iter().all(|one| one.is_ipv4() != address.is_ipv4()));
                            }
                        }
                        in_use.extend(&given);
                        freed.retain(|one| !given.contains(one));
                        pods.push(given);
                    }
                    Err(Exhausted::Full(full)) => {
                        let left = full.iter().flat_map(every).find(|one| may_be_given(&full, *one) && !in_use.contains(one));
                        prop_assert_eq!(left, None);
                    }
                    Err(Exhausted::NoPodCidr) => prop_assert!(false, "there are ranges"),
                }
            }
        }
    }

    /// Written another way than the code under test: by place in the range.
    fn may_be_given(ranges: &[IpNet], address: IpAddr) -> bool {
        ranges.iter().any(|range| {
            let all = every(range);
            let place = all.iter().position(|one| *one == address);
            place.is_some_and(|place| place >= 2 && (address.is_ipv6() || place + 1 < all.len()))
        })
    }

    fn every(range: &IpNet) -> Vec<IpAddr> {
        match range.trunc() {
            IpNet::V4(net) => {
                let first = u32::from(net.network());
                (0..1u32 << (32 - net.prefix_len()))
                    .map(|n| Ipv4Addr::from(first + n).into())
                    .collect()
            }
            IpNet::V6(net) => {
                let first = u128::from(net.network());
                (0..1u128 << (128 - net.prefix_len()))
                    .map(|n| Ipv6Addr::from(first + n).into())
                    .collect()
            }
        }
    }
}
