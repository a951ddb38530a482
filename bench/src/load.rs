//! The contents that a large cluster gives the maps: made up, and the same every time.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weir_abi::address::{Address, AddressValue};
use weir_abi::policy::{
    EGRESS, INGRESS, NO_PORTS, NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue,
    number_space, side,
};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::slots::{self, Slots};
use weir_agent::kernel::Capacities;
use weir_agent::table::{Addresses, Backends, Maps, Numbers, Policy, Ports, Services, Table};

/// How much there is of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Pods of the cluster.
    pub(crate) addresses: u32,
    /// Service ports, each with as many backends as there are to go round.
    pub(crate) services: u32,
    pub(crate) backends: u32,
    /// Policy set, direction and peer.
    pub(crate) policy: u32,
}

/// Identities of the pods; also the peers of every side of a policy set.
const IDENTITIES: u32 = 500;

/// Numbers that are free for a benchmark's own pods.
pub(crate) const OWN_POLICY_SETS: u32 = 10;
pub(crate) const OWN_RULES: u32 = 10;
pub(crate) const OWN_ENTRIES: u32 = 100;

const TCP: u8 = 6;

impl Load {
    pub(crate) const FULL: Load = Load {
        addresses: 100_000,
        services: 10_000,
        backends: 100_000,
        policy: 50_000,
    };
    pub(crate) const SMALL: Load = Load {
        addresses: 1_000,
        services: 100,
        backends: 1_000,
        policy: 500,
    };

    /// Maps of the size of the load.
    pub(crate) fn capacities(&self) -> Capacities {
        Capacities {
            flows: 131_072,
            addresses: self.addresses + OWN_ENTRIES,
            cidrs: 1_024,
            policy: self.policy + OWN_ENTRIES,
            ports: self.policy_sets() + OWN_ENTRIES,
            workloads: 512,
            services: self.services + OWN_ENTRIES,
            backends: self.backends + OWN_ENTRIES,
            rules: OWN_RULES + self.policy_sets(),
            numbers: self.numbers().len() as u32 + OWN_ENTRIES,
            non_masquerade: OWN_ENTRIES,
        }
    }

    /// Writes all of it.
    pub(crate) fn write(&self, maps: &mut impl Maps) -> io::Result<Vec<Written>> {
        Ok(vec![
            write::<Backends>(maps, &self.backend_entries())?,
            write::<Services>(maps, &self.service_entries())?,
            write::<Addresses>(maps, &self.address_entries())?,
            write::<Ports>(maps, &self.port_entries())?,
            write::<Policy>(maps, &self.policy_entries())?,
            write::<Numbers>(maps, &self.numbers())?,
        ])
    }

    /// 10.128.0.0/9.
    pub(crate) fn pod_address(index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 1).to_bits() + index)
    }

    /// 172.20.0.0/14.
    pub(crate) fn service_address(index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(172, 20, 0, 1).to_bits() + index)
    }

    pub(crate) fn address_entries(&self) -> Vec<(Address, AddressValue)> {
        let entry = |i| {
            (
                address(Load::pod_address(i)),
                AddressValue {
                    identity: 1 + i % IDENTITIES,
                    flags: 0,
                },
            )
        };
        (0..self.addresses).map(entry).collect()
    }

    fn service_entries(&self) -> Vec<(ServiceKey, ServiceValue)> {
        let each = self.backends / self.services;
        let entry = |i| {
            (
                service_key(Load::service_address(i).into(), 80),
                ServiceValue {
                    first: i * each,
                    count: each,
                },
            )
        };
        (0..self.services).map(entry).collect()
    }

    fn backend_entries(&self) -> Vec<(u32, Backend)> {
        let entry = |i| (i, backend(Load::pod_address(i % self.addresses).into(), 8080));
        (0..self.backends).map(entry).collect()
    }

    /// Every fourth peer has a port table.
    fn policy_entries(&self) -> Vec<(PolicyKey, PolicyValue)> {
        let entry = |i: u32| {
            let set = i / (2 * IDENTITIES);
            let direction = if (i / IDENTITIES).is_multiple_of(2) {
                INGRESS
            } else {
                EGRESS
            };
            let key = PolicyKey {
                side: side(OWN_POLICY_SETS + set, direction),
                peer: 1 + i % IDENTITIES,
            };
            let mut value = decides(slots::slot(1, slots::ACCEPT, OWN_RULES + set));
            if i.is_multiple_of(4) {
                (value.port_table, value.prefix_lens) = (1 + set, 1 << 16);
            }
            (key, value)
        };
        (0..self.policy).map(entry).collect()
    }

    fn port_entries(&self) -> Vec<(PortKey, PortValue)> {
        let entry = |set| {
            let key = PortKey {
                table: 1 + set,
                port: 8080,
                protocol: TCP,
                prefix_len: 16,
            };
            let slots = network_policy(slots::slot(0, slots::ACCEPT, OWN_RULES + set));
            (
                key,
                PortValue {
                    enforced: slots,
                    dry_run: slots,
                },
            )
        };
        (0..self.policy_sets()).map(entry).collect()
    }

    /// For everything above whose number must mean the same after a restart.
    fn numbers(&self) -> Vec<(NumberKey, NumberValue)> {
        let spaces = [
            (number_space::RULE, self.policy_sets()),
            (number_space::IDENTITY, IDENTITIES.min(self.addresses)),
        ];
        let entry = |space: u32, number: u32| {
            let digest = [u64::from(space) << 32 | u64::from(number), 0];
            (NumberKey { space, number }, NumberValue { digest })
        };
        spaces
            .iter()
            .flat_map(|(space, count)| (1..=*count).map(|number| entry(*space, number)))
            .collect()
    }

    fn policy_sets(&self) -> u32 {
        self.policy.div_ceil(2 * IDENTITIES)
    }
}

/// How long one table took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) table: &'static str,
    pub(crate) entries: usize,
    pub(crate) time: Duration,
}

fn write<T: Table>(maps: &mut impl Maps, entries: &[(T::Key, T::Value)]) -> io::Result<Written> {
    let start = Instant::now();
    maps.write::<T>(entries)?;
    Ok(Written {
        table: T::NAME,
        entries: entries.len(),
        time: start.elapsed(),
    })
}

pub(crate) fn address(ip: impl Into<IpAddr>) -> Address {
    Address::from_ip(ip.into())
}

/// TCP.
pub(crate) fn service_key(ip: IpAddr, port: u16) -> ServiceKey {
    ServiceKey {
        address: address(ip),
        port: port.to_be(),
        protocol: TCP,
        padding: [0; 5],
    }
}

pub(crate) fn backend(ip: IpAddr, port: u16) -> Backend {
    Backend {
        address: address(ip),
        port: port.to_be(),
        padding: [0; 3],
    }
}

/// A policy entry of one NetworkPolicy rule for every port.
pub(crate) fn decides(slot: u64) -> PolicyValue {
    let slots = network_policy(slot);
    PolicyValue {
        enforced: slots,
        dry_run: slots,
        port_table: NO_PORTS,
        prefix_lens: 0,
    }
}

fn network_policy(slot: u64) -> Slots {
    Slots {
        network_policy: slot,
        ..Slots::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn count<K: Ord, V>(entries: Vec<(K, V)>) -> u32 {
        let keys: BTreeSet<K> = entries.into_iter().map(|(key, _)| key).collect();
        keys.len() as u32
    }

    #[test]
    fn there_is_as_much_as_is_said_and_no_key_twice() {
        for load in [Load::FULL, Load::SMALL] {
            let counts = [
                count(load.address_entries()),
                count(load.service_entries()),
                count(load.backend_entries()),
                count(load.policy_entries()),
            ];
            assert_eq!(
                counts,
                [load.addresses, load.services, load.backends, load.policy]
            );
            assert_eq!(count(load.numbers()) as usize, load.numbers().len());
        }
    }

    #[test]
    fn every_service_has_backends_of_its_own() {
        let load = Load::FULL;
        let used: BTreeSet<u32> = load
            .service_entries()
            .iter()
            .flat_map(|(_, service)| service.first..service.first + service.count)
            .collect();
        assert_eq!(used, (0..load.backends).collect());
    }

    #[test]
    fn every_port_table_that_is_named_is_there() {
        let load = Load::FULL;
        let there: BTreeSet<u32> = load.port_entries().iter().map(|(key, _)| key.table).collect();
        let named: BTreeSet<u32> = load
            .policy_entries()
            .iter()
            .map(|(_, value)| value.port_table)
            .filter(|t| *t != NO_PORTS)
            .collect();
        assert_eq!(named, there);
    }
}
