//! The contents of all maps that hold desired state, as one value: what they are, or what they should be.

use std::collections::BTreeMap;
use std::io;

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::Masquerade;
use weir_abi::policy::{NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;

use crate::table::{
    Addresses, Backends, Cidrs, Maps, Masquerades, NonMasquerade, Numbers, Policy, Ports, Services, Workloads,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub workloads: BTreeMap<Address, Workload>,
    pub addresses: BTreeMap<Address, AddressValue>,
    pub cidrs: BTreeMap<CidrKey, u32>,
    pub policy: BTreeMap<PolicyKey, PolicyValue>,
    pub ports: BTreeMap<PortKey, PortValue>,
    pub services: BTreeMap<ServiceKey, ServiceValue>,
    pub backends: BTreeMap<u32, Backend>,
    pub non_masquerade: BTreeMap<CidrKey, u32>,
    pub masquerade: BTreeMap<u32, Masquerade>,
    pub numbers: BTreeMap<NumberKey, NumberValue>,
}

impl Contents {
    /// What the maps hold.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn read(maps: &impl Maps) -> io::Result<Self> {
        Ok(Self {
            workloads: maps.read::<Workloads>()?,
            addresses: maps.read::<Addresses>()?,
            cidrs: maps.read::<Cidrs>()?,
            policy: maps.read::<Policy>()?,
            ports: maps.read::<Ports>()?,
            services: maps.read::<Services>()?,
            backends: maps.read::<Backends>()?,
            non_masquerade: maps.read::<NonMasquerade>()?,
            masquerade: maps.read::<Masquerades>()?,
            numbers: maps.read::<Numbers>()?,
        })
    }
}
