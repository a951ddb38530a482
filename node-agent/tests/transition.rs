//! On the way from one state of the maps to the next, no packet meets anything but the old policy or the new one,
//! wherever the agent stops; and whatever the way, it ends in the same place.

mod judging;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use judging::cluster::{NODES, World, changed, desired_for, world};
use judging::host::{Host, Sides, address, sides};
use judging::memory::{Failure, MemoryMaps};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_abi::address::{Address, CidrKey};
use weir_abi::config::Control;
use weir_abi::event::{SideVerdict, side_verdict};
use weir_abi::service::ServiceKey;
use weir_agent::contents::Contents;
use weir_agent::desired::Desired;
use weir_agent::sync::Sync;
use weir_agent::table::{Maps, Table};
use weir_agent::transition::{Step, transition};
use weir_datapath::service::{Destination, resolve};
use weir_policy::arbitrary;
use weir_policy::resolved::{Cause, Flow};
use weir_policy::snapshot::{ClusterNetworkPolicy, Labels, NetworkPolicy, ObjectName, Pod, PodId, Snapshot};

const NODE: &str = NODES[0];
const FLOWS: usize = 250;

/// Maps that are looked at after every single entry.
struct Watched<'a> {
    maps: MemoryMaps,
    look: &'a mut dyn FnMut(&Contents),
    /// Whether something changed by which a packet is judged and the revision was not raised since.
    is_stale: bool,
}

impl Watched<'_> {
    fn after_entry<T: Table>(&mut self) {
        self.is_stale |= ["workloads", "addresses", "cidrs"].contains(&T::NAME);
        (self.look)(&self.maps.contents);
    }
}

impl Maps for Watched<'_> {
    fn read<T: Table>(&self) -> io::Result<BTreeMap<T::Key, T::Value>> {
        self.maps.read::<T>()
    }

    fn write<T: Table>(&mut self, entries: &[(T::Key, T::Value)]) -> io::Result<()> {
        assert!(!entries.is_empty(), "{}: a call for nothing", T::NAME);
        for entry in entries {
            self.maps.write::<T>(&[*entry])?;
            self.after_entry::<T>();
        }
        Ok(())
    }

    fn delete<T: Table>(&mut self, keys: &[T::Key]) -> io::Result<()> {
        assert!(!keys.is_empty(), "{}: a call for nothing", T::NAME);
        for key in keys {
            self.maps.delete::<T>(&[*key])?;
            self.after_entry::<T>();
        }
        Ok(())
    }

    fn control(&self) -> io::Result<Control> {
        self.maps.control()
    }

    fn set_control(&mut self, control: Control) -> io::Result<()> {
        self.is_stale &= control.revision == self.maps.control.revision;
        self.maps.set_control(control)
    }
}

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
    (world(), vec((world(), coins), 1..4)).prop_flat_map(|(first, others)| {
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

/// On the way, an address is in no CIDR that it is in neither before nor after; an IPv4 address never in an IPv6 one.
#[test]
fn longer_cidrs_come_first_and_go_last() {
    let v6 = |prefix_len, first| CidrKey {
        prefix_len,
        address: [u32::to_be(first), 0, 0, 0],
    };
    let all_v4 = CidrKey {
        prefix_len: 96,
        address: [0, 0, Address::MAPPED, 0],
    };
    let nested = [v6(0, 0), v6(16, 0xfd00_0000), v6(32, 0xfd00_0001), all_v4];
    let contents = Contents {
        cidrs: nested.into_iter().zip([4, 3, 2, 0]).collect(),
        ..Contents::default()
    };
    let lengths = |steps: Vec<Step>| -> Vec<u32> {
        let cidrs = steps.into_iter().flat_map(|step| {
            if let Step::WriteCidrs(entries) = step {
                entries.into_iter().map(|(key, _)| key).collect()
            } else if let Step::DeleteCidrs(keys) = step {
                keys
            } else {
                assert_eq!(step, Step::RaiseRevision);
                Vec::new()
            }
        });
        cidrs.map(|key| key.prefix_len).collect()
    };
    assert_eq!(
        lengths(transition(&Contents::default(), &contents)),
        [96, 32, 16, 0]
    );
    assert_eq!(
        lengths(transition(&contents, &Contents::default())),
        [0, 16, 32, 96]
    );
}

/// Two pods change places and their peer its name, so that each may be spoken to before and after: by the old name
/// under the one policy, by the new name under the other.
#[test]
fn two_pods_change_places_while_their_peer_changes_its_name() {
    let places = |q: &str, r: &str, peer: &str| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", q)),
            pod("r", NODE, "10.0.0.2", ("role", r)),
            pod("peer", NODES[1], "10.0.1.1", ("app", peer)),
            // Both names stay in use.
            pod("other-x", NODES[1], "10.0.1.2", ("app", "x")),
            pod("other-y", NODES[1], "10.0.1.3", ("app", "y")),
        ];
        cluster(
            pods.into(),
            [admits("one", "a", "x"), admits("two", "b", "y")].into(),
        )
    };
    passes(
        &places("a", "b", "x"),
        &places("b", "a", "y"),
        &[
            (flow("10.0.1.1", "10.0.0.1"), [side_verdict::ALLOW; 2]),
            (flow("10.0.1.1", "10.0.0.2"), [side_verdict::DENY; 2]),
        ],
    );
}

/// A peer takes a name that another one has all the time, and that no policy admits.
#[test]
fn a_peer_takes_the_name_of_another() {
    let named = |peer: &str, admitted: &str| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", peer)),
            pod("other", NODES[1], "10.0.1.2", ("app", "y")),
            pod("third", NODES[1], "10.0.1.3", ("app", "x")),
        ];
        cluster(pods.into(), [admits("one", "a", admitted)].into())
    };
    passes(
        &named("x", "x"),
        &named("y", "z"),
        &[
            (
                flow("10.0.1.1", "10.0.0.1"),
                [side_verdict::ALLOW, side_verdict::DENY],
            ),
            (flow("10.0.1.2", "10.0.0.1"), [side_verdict::DENY; 2]),
        ],
    );
}

/// All of IPv4 is admitted by its CIDR, and then one peer by its name; a CIDR of IPv6 stays.
#[test]
fn the_cidr_of_all_ipv4_addresses_goes() {
    let reaches = |to: serde_json::Value| {
        let spec = serde_json::json!({
            "podSelector": { "matchLabels": { "role": "a" } },
            "policyTypes": ["Egress"],
            "egress": [{ "to": [to, { "ipBlock": { "cidr": "fd00::/16" } }] }],
        });
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", "x")),
        ];
        cluster(pods.into(), [network_policy("one", spec)].into())
    };
    let by_cidr = reaches(serde_json::json!({ "ipBlock": { "cidr": "0.0.0.0/0" } }));
    let by_name = reaches(serde_json::json!({ "podSelector": { "matchLabels": { "app": "x" } } }));
    let flows = [(flow("10.0.0.1", "10.0.1.1"), [side_verdict::ALLOW; 2])];
    passes(&by_cidr, &by_name, &flows);
    passes(&by_name, &by_cidr, &flows);
}

/// A peer gets a name that the policy accepts and an address block that it denies, and the block's rule comes first.
#[test]
fn a_peer_changes_its_name_and_its_cidr_at_once() {
    let accept = |app: &str| {
        let peers = serde_json::json!([{ "pods": { "podSelector": { "matchLabels": { "app": app } } } }]);
        serde_json::json!({ "action": "Accept", "to": peers })
    };
    let deny = serde_json::json!({ "action": "Deny", "to": [{ "networks": ["10.0.1.0/24"] }] });
    let named = |app: &str, rules: &[&serde_json::Value]| {
        let pods = [
            pod("q", NODE, "10.0.0.1", ("role", "a")),
            pod("peer", NODES[1], "10.0.1.1", ("app", app)),
            pod("other", NODES[1], "10.0.2.1", ("app", "z")),
        ];
        let isolation = serde_json::json!({ "podSelector": {}, "policyTypes": ["Egress"] });
        let mut world = cluster(pods.into(), [network_policy("isolation", isolation)].into());
        let spec = serde_json::json!({
            "tier": "Admin",
            "priority": 1,
            "subject": { "pods": { "podSelector": { "matchLabels": { "role": "a" } } } },
            "egress": rules,
        });
        let policy = ClusterNetworkPolicy {
            annotations: Labels::new(),
            spec: serde_json::from_value(spec).expect("a policy"),
        };
        let policies = &mut world.snapshot.cluster_network_policies;
        policies.insert("admin".to_owned(), policy);
        world
    };
    passes(
        &named("x", &[&accept("z")]),
        &named("y", &[&accept("z"), &deny, &accept("y")]),
        &[(flow("10.0.0.1", "10.0.1.1"), [side_verdict::DENY; 2])],
    );
}

/// From one cluster to the other, with the verdicts that the flows have in the first and in the second.
fn passes(one: &World, other: &World, flows: &[(Flow, [u8; 2])]) {
    let first = desired_for(one, NODE, &Contents::default()).contents;
    let second = desired_for(other, NODE, &first);
    for (flow, verdicts) in flows {
        let verdict = |contents: &Contents| {
            let sides = sides(contents, flow);
            sides.egress.or(sides.ingress).map(|side| side.verdict)
        };
        let both = [verdict(&first), verdict(&second.contents)];
        assert_eq!(both, verdicts.map(Some), "{flow:?}");
    }
    let flows: Vec<Flow> = flows.iter().map(|(flow, _)| flow.clone()).collect();
    let contents = watch(&mut Sync::default(), &first, &second, &[&first], &flows);
    assert_eq!(contents.expect("before or after"), second.contents);
}

fn cluster(pods: BTreeMap<PodId, Pod>, network_policies: BTreeMap<ObjectName, NetworkPolicy>) -> World {
    World {
        snapshot: Snapshot {
            namespaces: [("blue".to_owned(), Labels::new())].into(),
            pods,
            network_policies,
            ..Snapshot::default()
        },
        services: Vec::new(),
    }
}

fn flow(from: &str, to: &str) -> Flow {
    Flow {
        source: address(from),
        destination: address(to),
        protocol: 6,
        destination_port: 80,
    }
}

fn pod(name: &str, node: &str, ip: &str, (key, value): (&str, &str)) -> (PodId, Pod) {
    let pod = Pod {
        labels: [(key.to_owned(), value.to_owned())].into(),
        node: node.to_owned(),
        addresses: vec![address(ip)],
        ..Pod::default()
    };
    (PodId::new("blue", name), pod)
}

/// The pods of this role may be spoken to by those of this app only.
fn admits(name: &str, role: &str, app: &str) -> (ObjectName, NetworkPolicy) {
    let spec = serde_json::json!({
        "podSelector": { "matchLabels": { "role": role } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }],
    });
    network_policy(name, spec)
}

fn network_policy(name: &str, spec: serde_json::Value) -> (ObjectName, NetworkPolicy) {
    let policy = NetworkPolicy {
        annotations: Labels::new(),
        spec: serde_json::from_value(spec).expect("a policy"),
    };
    (ObjectName::new("blue", name), policy)
}

/// Applies, and looks at the maps after every entry. `before` is all that may have been in force when it begins.
fn watch(
    sync: &mut Sync,
    contents: &Contents,
    desired: &Desired,
    before: &[&Contents],
    flows: &[Flow],
) -> Result<Contents, TestCaseError> {
    let allowed: Vec<&Contents> = before.iter().copied().chain([&desired.contents]).collect();
    let known: Vec<Vec<Sides>> = allowed
        .iter()
        .map(|contents| flows.iter().map(|flow| sides(contents, flow)).collect())
        .collect();
    let mut problem = Ok(());
    let mut states = 0;
    let mut look = |now: &Contents| {
        states += 1;
        if problem.is_ok() {
            problem = is_between(now, &allowed, &known, flows)
                .and_then(|()| serves(now, &allowed))
                .and_then(|()| points_to_what_is(now))
                .map_err(|error| TestCaseError::fail(format!("after entry {states}: {error}")));
        }
    };
    let revision = 7;
    let mut maps = MemoryMaps::new(contents.clone());
    maps.control.revision = revision;
    let mut watched = Watched {
        maps,
        look: &mut look,
        is_stale: false,
    };
    let written = sync
        .apply(&mut watched, desired.contents.clone())
        .expect("nothing fails");
    let Watched { maps, is_stale, .. } = watched;
    problem?;
    prop_assert_eq!(written.entries.values().sum::<u64>(), states);
    prop_assert_eq!(written.revision, maps.control.revision);
    prop_assert!(
        !is_stale && maps.control.revision <= revision + 1,
        "connections are decided anew once, at the end"
    );
    Ok(maps.contents)
}

/// Each side of each flow is judged as in one of the states that are allowed, for the same cause.
fn is_between(
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
fn serves(now: &Contents, allowed: &[&Contents]) -> Result<(), TestCaseError> {
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
enum Led {
    Nowhere,
    Straight,
    To(Address, u16),
}

fn led(contents: &Contents, key: &ServiceKey) -> BTreeSet<Led> {
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
fn points_to_what_is(now: &Contents) -> Result<(), TestCaseError> {
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

/// The maps say of every flow what they would have said had they been empty before, and hold no more entries.
fn is_as_from_scratch(world: &World, desired: &Desired, flows: &[Flow]) -> Result<(), TestCaseError> {
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
