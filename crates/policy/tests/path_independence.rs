//! The outcome depends on what objects there are, and not on how they came to be there.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use weir_policy::cluster::Cluster;
use weir_policy::snapshot::Snapshot;
use weir_policy::{arbitrary, resolve};

/// One object put into a snapshot or taken out of it again.
type Event<'a> = Box<dyn Fn(&mut Snapshot) + 'a>;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/path_independence.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_order_of_events_gives_the_same(
        snapshot in arbitrary::snapshot(),
        passing in arbitrary::snapshot(),
        order in proptest::collection::vec(any::<Index>(), 64),
    ) {
        let mut events = insertions(&passing);
        shuffle(&mut events, &order);
        let mut later = removals(&passing);
        later.extend(insertions(&snapshot));
        shuffle_keeping_insertions_last(&mut later, &order, insertions(&snapshot).len());
        events.extend(later);

        let mut reached = Snapshot::default();
        for event in &events {
            event(&mut reached);
        }
        prop_assert_eq!(Cluster::new(reached), Cluster::new(snapshot.clone()));
    }

    /// Numbers of identities are names: others give the same answers.
    #[test]
    fn identity_numbers_do_not_matter(
        (snapshot, flows) in arbitrary::snapshot().prop_flat_map(|snapshot| {
            let flows = arbitrary::some_flows(&snapshot, 40);
            (Just(snapshot), flows)
        }),
    ) {
        let ascending = Cluster::new(snapshot.clone());
        let descending = Cluster::numbered(snapshot, |index| 9_000_000 - 7 * index);
        for flow in &flows {
            prop_assert_eq!(ascending.answer(flow), descending.answer(flow), "{:?}", flow);
        }
    }

    /// A node need not know of the policies that select none of its pods.
    #[test]
    fn policies_that_select_no_local_pod_do_not_matter(snapshot in arbitrary::snapshot()) {
        let cluster = Cluster::new(snapshot);
        let spans = weir_policy::span::spans(&cluster.lowered.policies, &cluster.snapshot);
        for (node, resolved) in &cluster.resolved {
            let mut policies = cluster.lowered.policies.clone();
            policies.retain(|policy, _| spans[policy].contains(node));
            let local = |id: &weir_policy::snapshot::PodId| cluster.snapshot.pods[id].node == *node;
            let local = cluster.keys.iter().filter(|(id, _)| local(id)).map(|(id, key)| (id.clone(), key.clone()));
            prop_assert_eq!(&resolve(&policies, &cluster.identities, &local.collect()), resolved);
        }
    }
}

fn insertions(snapshot: &Snapshot) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    for (key, value) in snapshot.namespaces.clone() {
        events.push(Box::new(move |to| {
            drop(to.namespaces.insert(key.clone(), value.clone()))
        }));
    }
    for (key, value) in snapshot.pods.clone() {
        events.push(Box::new(move |to| {
            drop(to.pods.insert(key.clone(), value.clone()))
        }));
    }
    for (key, value) in snapshot.nodes.clone() {
        events.push(Box::new(move |to| {
            drop(to.nodes.insert(key.clone(), value.clone()))
        }));
    }
    for (key, value) in snapshot.network_policies.clone() {
        events.push(Box::new(move |to| {
            drop(to.network_policies.insert(key.clone(), value.clone()))
        }));
    }
    for (key, value) in snapshot.cluster_network_policies.clone() {
        events.push(Box::new(move |to| {
            drop(to.cluster_network_policies.insert(key.clone(), value.clone()))
        }));
    }
    events
}

fn removals(snapshot: &Snapshot) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    for key in snapshot.namespaces.keys() {
        events.push(Box::new(move |from| drop(from.namespaces.remove(key))));
    }
    for key in snapshot.pods.keys() {
        events.push(Box::new(move |from| drop(from.pods.remove(key))));
    }
    for key in snapshot.nodes.keys() {
        events.push(Box::new(move |from| drop(from.nodes.remove(key))));
    }
    for key in snapshot.network_policies.keys() {
        events.push(Box::new(move |from| drop(from.network_policies.remove(key))));
    }
    for key in snapshot.cluster_network_policies.keys() {
        events.push(Box::new(move |from| {
            drop(from.cluster_network_policies.remove(key))
        }));
    }
    events
}

fn shuffle(events: &mut [Event<'_>], order: &[Index]) {
    for (position, index) in (1..events.len()).zip(order.iter().cycle()) {
        events.swap(position, index.index(position + 1));
    }
}

/// An object of the same name in both snapshots must be put in after it was taken out.
fn shuffle_keeping_insertions_last(events: &mut [Event<'_>], order: &[Index], insertions: usize) {
    let (removals, insertions) = events.split_at_mut(events.len() - insertions);
    shuffle(removals, order);
    shuffle(insertions, order);
}
