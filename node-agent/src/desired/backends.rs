//! Services and the ranges of the `backends` array that they point to.
//!
//! A range never changes while a Service points to it: other backends are another range, and the Service changes to
//! it in one write.

use std::collections::BTreeMap;

use weir_abi::address::Address;
use weir_abi::service::{Backend, ServiceKey, ServiceValue};

use crate::contents::Contents;
use crate::services::ServicePort;

type Placed = (BTreeMap<ServiceKey, ServiceValue>, BTreeMap<u32, Backend>);

pub(super) fn place(services: &[ServicePort], actual: &Contents) -> Placed {
    let mut taken = Ranges::default();
    for value in actual.services.values() {
        taken.take(value.first, value.count);
    }
    for index in actual.backends.keys() {
        taken.take(*index, 1);
    }
    let mut placed = Placed::default();
    for service in services {
        let backends: Vec<Backend> = service
            .backends
            .iter()
            .map(|(ip, port)| backend(*ip, *port))
            .collect();
        let key = ServiceKey {
            address: Address::from_ip(service.address),
            port: service.port.to_be(),
            protocol: service.protocol,
            padding: [0; 5],
        };
        // A Service has far fewer backends than there are numbers.
        let count = backends.len() as u32;
        let value = match actual.services.get(&key) {
            Some(value) if value.count == count && holds(actual, value.first, &backends) => *value,
            _ => ServiceValue {
                first: if count == 0 { 0 } else { taken.allocate(count) },
                count,
            },
        };
        placed.1.extend((value.first..).zip(backends));
        placed.0.insert(key, value);
    }
    placed
}

fn backend(ip: std::net::IpAddr, port: u16) -> Backend {
    Backend {
        address: Address::from_ip(ip),
        port: port.to_be(),
        padding: [0; 3],
    }
}

fn holds(actual: &Contents, first: u32, backends: &[Backend]) -> bool {
    (first..)
        .zip(backends)
        .all(|(index, backend)| actual.backends.get(&index) == Some(backend))
}

/// What of the array is taken: from each key to its value, without touching or overlapping.
#[derive(Default)]
struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    fn take(&mut self, first: u32, count: u32) {
        let (mut from, mut to) = (first, first + count);
        if count == 0 {
            return;
        }
        if let Some((start, end)) = self
            .0
            .range(..=from)
            .next_back()
            .map(|(start, end)| (*start, *end))
            && end >= from
        {
            from = start;
            to = to.max(end);
        }
        while let Some((start, end)) = self.0.range(from..=to).next().map(|(start, end)| (*start, *end)) {
            to = to.max(end);
            self.0.remove(&start);
        }
        self.0.insert(from, to);
    }

    /// The lowest free range of this length.
    fn allocate(&mut self, count: u32) -> u32 {
        let mut at = 0;
        for (start, end) in &self.0 {
            if start - at >= count {
                break;
            }
            at = *end;
        }
        self.take(at, count);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_gaps_are_used() {
        let mut ranges = Ranges::default();
        ranges.take(2, 3);
        ranges.take(5, 1);
        ranges.take(10, 2);
        assert_eq!(ranges.0, BTreeMap::from([(2, 6), (10, 12)]));
        assert_eq!(ranges.allocate(4), 6);
        assert_eq!(ranges.allocate(3), 12);
        assert_eq!(ranges.allocate(2), 0);
        assert_eq!(ranges.0, BTreeMap::from([(0, 15)]));
    }

    #[test]
    fn an_unchanged_service_keeps_its_range_and_a_changed_one_gets_another() {
        let service = |port: u16, backends: &[u16]| ServicePort {
            namespace: "a".to_owned(),
            name: port.to_string(),
            port_name: String::new(),
            protocol: 6,
            address: [10, 0, 0, 1].into(),
            port,
            backends: backends
                .iter()
                .map(|port| ([10, 1, 0, 1].into(), *port))
                .collect(),
        };
        let (services, backends) = place(
            &[service(1, &[80, 81]), service(2, &[90]), service(3, &[])],
            &Contents::default(),
        );
        let actual = Contents {
            services: services.clone(),
            backends,
            ..Contents::default()
        };
        let (changed, _) = place(&[service(1, &[80, 82]), service(2, &[90])], &actual);
        let of = |map: &BTreeMap<ServiceKey, ServiceValue>, port: u16| {
            map.iter()
                .find(|(key, _)| key.port == port.to_be())
                .map(|(_, value)| *value)
                .expect("placed")
        };
        assert_eq!(of(&changed, 2), of(&services, 2));
        assert_eq!(of(&services, 1), ServiceValue { first: 0, count: 2 });
        assert_eq!(of(&changed, 1), ServiceValue { first: 3, count: 2 });
        assert_eq!(of(&services, 3), ServiceValue { first: 0, count: 0 });
    }
}
