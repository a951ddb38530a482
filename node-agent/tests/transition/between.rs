//! What must hold of the maps at any moment on the way.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weir_abi::address::Address;
use weir_abi::event::SideVerdict;
use weir_abi::service::ServiceKey;
use weir_agent::contents::Contents;
use weir_datapath::service::{Destination, resolve};
use weir_policy::resolved::Flow;

use crate::judging::host::{Host, Sides, sides};

/// Each side of each flow is judged as in one of the states that are allowed, for the same cause.
pub(crate) fn is_between(
    now: &Contents,
    allowed: &[&Contents],
    known: &[Vec<Sides>],
    flows: &[Flow],
) -> Result<(), TestCaseError> {
    for (index, flow) in flows.iter().enumerate() {
        let is = sides(now, flow);
        let possible: Vec<Sides> = known.iter().map(|sides| sides[index]).collect();
        let side = |name, is: Option<SideVerdict>, of: fn(&Sides) -> Option<SideVerdict>| {
            let Some(is) = is else { return Ok(()) };
            let possible: Vec<SideVerdict> = possible.iter().filter_map(of).collect();
            let enforced = possible
                .iter()
                .any(|one| (one.verdict, one.rule) == (is.verdict, is.rule));
            let dry_run = |one: &SideVerdict| {
                (one.dry_run_verdict, one.dry_run_rule) == (is.dry_run_verdict, is.dry_run_rule)
            };
            prop_assert!(
                enforced && possible.iter().any(dry_run),
                "{name} of {flow:?}: {is:?}, and not one of {possible:?}"
            );
            Ok(())
        };
        side("egress", is.egress, |sides| sides.egress)?;
        side("ingress", is.ingress, |sides| sides.ingress)?;
        // A pod that stays is never unknown.
        for address in [flow.source, flow.destination] {
            let address = Address::from_ip(address);
            let stays = allowed
                .iter()
                .all(|contents| contents.workloads.contains_key(&address));
            prop_assert!(!stays || now.workloads.contains_key(&address), "{flow:?}");
        }
    }
    Ok(())
}

/// A Service leads to whom it may lead to, whatever the choice.
pub(crate) fn serves(now: &Contents, allowed: &[&Contents]) -> Result<(), TestCaseError> {
    let keys: BTreeSet<&ServiceKey> = allowed
        .iter()
        .flat_map(|contents| contents.services.keys())
        .collect();
    for key in keys {
        let possible: Vec<BTreeSet<Led>> = allowed.iter().map(|contents| led(contents, key)).collect();
        let is = led(now, key);
        prop_assert!(
            possible.contains(&is),
            "{key:?} leads to {is:?}, and not to one of {possible:?}"
        );
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Led {
    Nowhere,
    Straight,
    To(Address, u16),
}

pub(crate) fn led(contents: &Contents, key: &ServiceKey) -> BTreeSet<Led> {
    let count = contents.services.get(key).map_or(1, |value| value.count.max(1));
    let choices = (0..count).map(|choice| {
        match resolve(&Host(contents), &key.address, key.port, key.protocol, choice) {
            Destination::Plain => Led::Straight,
            Destination::NoBackend => Led::Nowhere,
            Destination::Backend(backend) => Led::To(backend.address, backend.port),
        }
    });
    choices.collect()
}

/// No number is used that stands for nothing.
pub(crate) fn points_to_what_is(now: &Contents) -> Result<(), TestCaseError> {
    let tables: BTreeSet<u32> = now.ports.keys().map(|key| key.table).collect();
    let sets: BTreeSet<u32> = now.policy.keys().map(|key| key.side >> 1).collect();
    for value in now.policy.values() {
        prop_assert!(
            value.port_table == 0 || tables.contains(&value.port_table),
            "{value:?}"
        );
    }
    for workload in now.workloads.values() {
        prop_assert!(
            workload.policy_set == 0 || sets.contains(&workload.policy_set),
            "{workload:?}"
        );
    }
    Ok(())
}
