//! What the kernel's maps should hold.
//!
//! Numbers of port tables, policy sets, CIDRs and ranges of backends are chosen so that what is in the maps already
//! is used where it is right, and so that nothing in use changes its meaning: see [`policy_sets`].

mod backends;
mod cidrs;
mod policy_sets;
mod port_tables;
mod ranges;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(crate) use cidrs::{NOBODY, cidr_key};

use weir_abi::address::{Address, AddressValue, UNKNOWN_IDENTITY, UNKNOWN_POD, address_flags};
use weir_abi::policy::number_space;
use weir_abi::workload::{NO_POLICY_SET, Workload, workload_flags};
use weir_policy::resolved::Cause;
use weir_policy::snapshot::PodId;

use crate::contents::Contents;
use crate::log_wishes::LogWishes;
use crate::network::{self, NetworkSettings};
use crate::numbers;
use crate::plan::{Owner, Plan};
use crate::services::ServicePort;
use crate::workloads::PodInterface;

/// The number that the policies' entries know it by is the one that the programs look for.
const _: () = assert!(weir_policy::resolved::UNKNOWN_POD == UNKNOWN_POD);

/// A pod of this node that has its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    pub addresses: Vec<IpAddr>,
    pub interface: PodInterface,
    pub log: LogWishes,
    /// Nothing but traffic with its own node is to pass.
    pub closed: bool,
}

/// All that the maps' contents follow from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub plan: &'a Plan,
    pub pods: &'a BTreeMap<PodId, LocalPod>,
    pub services: &'a [ServicePort],
    /// Addresses of this node that no object names.
    pub own_addresses: &'a BTreeSet<IpAddr>,
    pub network: &'a NetworkSettings,
    /// Rule numbers are below this.
    pub rule_capacity: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub contents: Contents,
    /// What each rule number stands for.
    pub rules: BTreeMap<u32, Cause>,
    /// Rule numbers that stood for something else, or nothing, before: their counts start at zero.
    pub new_rules: BTreeSet<u32>,
}

/// More rules than rule numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the policies need {needed} rule numbers, and there are {capacity}")]
pub struct TooManyRules {
    pub needed: usize,
    pub capacity: u32,
}

/// The contents that the maps should have, given those that they have.
///
/// # Errors
///
/// If there are more rules than `rule_capacity` has numbers for.
pub fn desired(inputs: &Inputs<'_>, actual: &Contents) -> Result<Desired, TooManyRules> {
    let resolved = &inputs.plan.resolved;
    let rules = rules::number(&resolved.causes, &actual.numbers, inputs.rule_capacity)?;
    let tables = port_tables::number(&resolved.port_tables, &rules.by_cause, &actual.ports);
    let cidrs = cidrs::number(&resolved.cidrs, actual);
    let mut contents = Contents {
        addresses: addresses(inputs),
        cidrs: cidrs.entries.clone(),
        non_masquerade: ranges::ranges(inputs),
        masquerade: network::masquerade(inputs.network),
        ports: tables.entries.clone(),
        numbers: numbers::entries(number_space::RULE, &rules.numbers)
            .chain(numbers::entries(
                number_space::IDENTITY,
                &inputs.plan.identity_numbers,
            ))
            .collect(),
        ..Contents::default()
    };
    let layouts = policy_sets::lay_out(resolved, &rules.by_cause, &tables, &cidrs);
    let sets = policy_sets::number(&layouts, &users(inputs), &contents, actual);
    contents.policy = policy_sets::entries(&layouts, &sets);
    contents.workloads = workloads(inputs, &sets);
    (contents.services, contents.backends) = backends::place(inputs.services, actual);
    Ok(Desired {
        contents,
        rules: rules.causes,
        new_rules: rules.new,
    })
}

fn addresses(inputs: &Inputs<'_>) -> BTreeMap<Address, AddressValue> {
    let own = AddressValue {
        identity: UNKNOWN_IDENTITY,
        flags: address_flags::LOCAL_NODE,
    };
    let owned = inputs.plan.addresses.iter().filter_map(|(ip, owner)| {
        let value = match owner {
            Owner::Pod(id) => AddressValue {
                identity: *inputs.plan.pods.get(id)?,
                flags: 0,
            },
            Owner::SomePod => AddressValue {
                identity: UNKNOWN_POD,
                flags: 0,
            },
            Owner::ThisNode => own,
            Owner::OtherNode(_) => AddressValue {
                identity: UNKNOWN_IDENTITY,
                flags: address_flags::REMOTE_NODE,
            },
        };
        Some((Address::from_ip(*ip), value))
    });
    let mut addresses: BTreeMap<_, _> = owned.collect();
    for ip in inputs.own_addresses {
        addresses.insert(Address::from_ip(*ip), own);
    }
    addresses
}

/// The addresses of pods, and the resolved set of each.
fn users(inputs: &Inputs<'_>) -> BTreeMap<Address, Option<usize>> {
    let users = inputs.pods.iter().flat_map(|(id, pod)| {
        let set = inputs.plan.resolved.pods.get(id).copied();
        owned_addresses(inputs.plan, id, pod).map(move |address| (address, set))
    });
    users.collect()
}

/// An address that somebody else owns would let the pod speak for them.
fn owned_addresses(plan: &Plan, id: &PodId, pod: &LocalPod) -> impl Iterator<Item = Address> {
    let owned = pod
        .addresses
        .iter()
        .filter(move |ip| matches!(plan.addresses.get(ip), Some(Owner::Pod(owner)) if owner == id));
    owned.map(|ip| Address::from_ip(*ip))
}

fn workloads(inputs: &Inputs<'_>, sets: &[policy_sets::SetNumber]) -> BTreeMap<Address, Workload> {
    let plan = inputs.plan;
    let mut workloads = BTreeMap::new();
    for (id, pod) in inputs.pods {
        let (Some(identity), set) = (plan.pods.get(id), plan.resolved.pods.get(id)) else {
            continue;
        };
        let (policy_set, cidr_flags) = set.map_or((NO_POLICY_SET, 0), |index| {
            (sets[*index].number, sets[*index].cidr_flags)
        });
        let mut flags = cidr_flags | pod.log.flags;
        if pod.closed {
            flags |= workload_flags::CLOSED;
        }
        let workload = Workload {
            ifindex: pod.interface.host_ifindex,
            identity: *identity,
            policy_set,
            flags,
            pod_mac: pod.interface.pod_mac.0,
            host_mac: pod.interface.host_mac.0,
            log_allow_every: pod.log.allow_every,
        };
        workloads.extend(owned_addresses(plan, id, pod).map(|address| (address, workload)));
    }
    workloads
}
