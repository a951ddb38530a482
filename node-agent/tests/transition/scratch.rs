//! Where the way ends, it is as if there had been none.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_abi::event::SideVerdict;
use weir_agent::contents::Contents;
use weir_agent::desired::Desired;
use weir_policy::resolved::{Cause, Flow};

use crate::NODE;
use crate::between::led;
use crate::judging::cluster::{World, desired_for};
use crate::judging::host::sides;

/// The maps say of every flow what they would have said had they been empty before, and hold no more entries.
pub(crate) fn is_as_from_scratch(
    world: &World,
    desired: &Desired,
    flows: &[Flow],
) -> Result<(), TestCaseError> {
    let scratch = desired_for(world, NODE, &Contents::default());
    for flow in flows {
        prop_assert_eq!(
            spelled_out(desired, flow),
            spelled_out(&scratch, flow),
            "{:?}",
            flow
        );
    }
    prop_assert_eq!(sizes(&desired.contents), sizes(&scratch.contents));
    for key in scratch.contents.services.keys() {
        prop_assert_eq!(led(&desired.contents, key), led(&scratch.contents, key));
    }
    let causes = |desired: &Desired| desired.rules.values().cloned().collect::<BTreeSet<Cause>>();
    prop_assert_eq!(causes(desired), causes(&scratch));
    Ok(())
}

type Spelled = Option<(u8, Option<Cause>, u8, Option<Cause>)>;

/// The verdicts, with causes in place of their numbers.
fn spelled_out(desired: &Desired, flow: &Flow) -> (Spelled, Spelled) {
    let sides = sides(&desired.contents, flow);
    let spell = |side: Option<SideVerdict>| {
        side.map(|side| {
            let cause = |rule| desired.rules.get(rule).cloned();
            (
                side.verdict,
                cause(&side.rule),
                side.dry_run_verdict,
                cause(&side.dry_run_rule),
            )
        })
    };
    (spell(sides.egress), spell(sides.ingress))
}

fn sizes(contents: &Contents) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("workloads", contents.workloads.len()),
        ("addresses", contents.addresses.len()),
        ("cidrs", contents.cidrs.len()),
        ("policy", contents.policy.len()),
        ("ports", contents.ports.len()),
        ("services", contents.services.len()),
        ("backends", contents.backends.len()),
        ("numbers", contents.numbers.len()),
    ])
}
