//! Generated worlds, what becomes of them, and agents that stop on the way.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_agent::contents::Contents;
use weir_agent::sync::Sync;
use weir_policy::arbitrary;
use weir_policy::resolved::Flow;
use weir_policy::snapshot::Snapshot;

use crate::NODE;
use crate::judging::cluster::{World, changed, desired_for, world, world_with_pod_ranges};
use crate::judging::memory::{Failure, MemoryMaps};
use crate::scratch::is_as_from_scratch;
use crate::watch::watch;

const FLOWS: usize = 250;

/// A world, and what becomes of it.
#[derive(Debug, Clone)]
struct History {
    worlds: Vec<World>,
    flows: Vec<Flow>,
}

fn history() -> impl Strategy<Value = History> {
    // Few changes at once, many, and a wholly different world.
    let coins = prop_oneof![
        3 => vec(proptest::bool::weighted(0.15), 40),
        2 => vec(any::<bool>(), 40),
        1 => Just(vec![true; 40]),
    ];
    let first = prop_oneof![world(), world_with_pod_ranges()];
    (first, vec((world(), coins), 1..4)).prop_flat_map(|(first, others)| {
        let mut worlds = vec![first];
        for (other, coins) in &others {
            worlds.push(changed(&worlds[worlds.len() - 1], other, coins));
        }
        let flows = arbitrary::some_flows(&all_of(&worlds), FLOWS);
        (Just(worlds), flows).prop_map(|(worlds, flows)| History { worlds, flows })
    })
}

/// A cluster with the pods of all of them, for the sake of their addresses.
fn all_of(worlds: &[World]) -> Snapshot {
    let mut all = worlds[0].snapshot.clone();
    for (world, number) in worlds.iter().zip(0..) {
        for (id, pod) in &world.snapshot.pods {
            let mut id = id.clone();
            id.name = format!("{}-{number}", id.name);
            all.pods.insert(id, pod.clone());
        }
    }
    all
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/transition.txt",
        ))),
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn every_state_on_the_way_is_before_or_after(history in history()) {
        let mut contents = Contents::default();
        let mut sync = Sync::default();
        for world in &history.worlds {
            let desired = desired_for(world, NODE, &contents);
            contents = watch(&mut sync, &contents, &desired, &[&contents.clone()], &history.flows)?;
            prop_assert_eq!(&contents, &desired.contents);
            is_as_from_scratch(world, &desired, &history.flows)?;
        }
    }

    /// The agent dies anywhere on the way from one world to the next, and another one, which remembers nothing, goes
    /// on, to where the first one went or elsewhere.
    #[test]
    fn an_agent_without_memory_goes_on_from_anywhere(
        history in history(),
        stops in vec((0usize..30, 0usize..12), 3),
    ) {
        let mut contents = Contents::default();
        let mut met = vec![];
        for (world, (call, entries)) in history.worlds.iter().zip(stops) {
            // What an agent begins with does not change what can be met before it is done.
            met.push(contents.clone());
            let desired = desired_for(world, NODE, &contents);
            let mut maps = MemoryMaps::new(contents.clone());
            maps.fail(Some(Failure { call: call + 8, entries }));
            let dead = Sync::default().apply(&mut maps, desired.contents.clone());
            prop_assert!(dead.is_err() || maps.contents == desired.contents);
            met.push(desired.contents);
            contents = maps.contents;
        }
        let before: Vec<&Contents> = met.iter().collect();
        let last = &history.worlds[history.worlds.len() - 1];
        let desired = desired_for(last, NODE, &contents);
        let after = watch(&mut Sync::default(), &contents, &desired, &before, &history.flows)?;
        prop_assert_eq!(&after, &desired.contents);
        is_as_from_scratch(last, &desired, &history.flows)?;
    }

    /// An agent that was refused something knows no longer what the maps hold, reads them, and gets there.
    #[test]
    fn a_failed_call_is_made_up_for(history in history(), call in 0usize..30, entries in 0usize..6) {
        let mut maps = MemoryMaps::default();
        let mut sync = Sync::default();
        for world in &history.worlds {
            maps.fail(Some(Failure { call, entries }));
            for attempt in 0.. {
                let Ok(actual) = sync.actual(&maps) else { continue };
                let desired = desired_for(world, NODE, actual);
                if sync.apply(&mut maps, desired.contents.clone()).is_ok() {
                    prop_assert_eq!(&maps.contents, &desired.contents);
                    prop_assert_eq!(sync.actual(&maps).ok(), Some(&desired.contents));
                    is_as_from_scratch(world, &desired, &history.flows)?;
                    break;
                }
                prop_assert!(attempt < 2, "one call fails, so the second attempt succeeds");
            }
        }
    }
}

/// Wherever an agent stopped, the next one sees to it that connections are decided anew: it cannot know whether the
/// one before did.
#[test]
fn connections_are_decided_anew_after_a_stop_anywhere() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..10 {
        let history = history()
            .new_tree(&mut runner)
            .expect("the strategy rejects nothing")
            .current();
        let first = desired_for(&history.worlds[0], NODE, &Contents::default()).contents;
        for call in 0.. {
            let mut maps = MemoryMaps::new(first.clone());
            let second = desired_for(&history.worlds[1], NODE, &first).contents;
            maps.fail(Some(Failure { call, entries: 0 }));
            let done = Sync::default().apply(&mut maps, second).is_ok();
            maps.fail(None);
            let raised = maps.control.revision;
            let second = desired_for(&history.worlds[1], NODE, &maps.contents).contents;
            Sync::default().apply(&mut maps, second).expect("nothing fails");
            assert_eq!(maps.control.revision, raised + 1, "stopped at call {call}");
            if done {
                break;
            }
        }
    }
}
