//! The agent's part of the plan, in a cluster: what the operator wants of this node, the address book, and the pods
//! that are here, as the same [`Plan`] that standalone mode makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::address::{Address, CidrKey, UNKNOWN_IDENTITY};
use weir_policy::identity::IdentityKey;
use weir_policy::resolve;
use weir_policy::resolved::IdentityNumber;
use weir_policy::snapshot::{Pod, PodId, Snapshot};

use crate::address_book::{AddressBook, NodeEntry};
use crate::desired::cidr_key;
use crate::node_spec::NodeSpec;
use crate::plan::{Owner, Plan, owners};
use crate::trie::{Trie, host};

/// A pod that is connected to this node, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnPod<'a> {
    /// What the API says of it; `None` where it says nothing.
    pub pod: Option<&'a Pod>,
    /// Those that this node gave it.
    pub addresses: &'a Vec<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub struct NodePlan {
    pub plan: Plan,
    /// Pods that only their own node may reach, and why.
    pub closed: BTreeMap<PodId, Closed>,
}

/// Why a pod is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The API server has told nothing of it.
    Unknown,
    /// Its containers have ended; it waits to be taken down.
    Over,
    /// The address book has no such identity.
    NoIdentity,
    /// Policies for the identity may be missing.
    NotCovered(IdentityNumber),
    /// A policy that may select it is not understood.
    Policy(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the API server has not told of the pod yet"),
            Self::Over => f.write_str("it is over"),
            Self::NoIdentity => f.write_str("the operator has given no number to its identity yet"),
            Self::NotCovered(number) => {
                write!(f, "the NodeDataplane does not cover its identity, {number}, yet")
            }
            Self::Policy(what) => write!(f, "{what} may select it and is not understood"),
        }
    }
}

/// Plans for `node`. `pods` are those on the pod network that are connected here: of their addresses the agent knows
/// best, of all others' the book.
#[must_use]
pub fn node_plan(
    spec: &NodeSpec,
    node: &str,
    book: &AddressBook,
    pods: &BTreeMap<PodId, OwnPod<'_>>,
) -> NodePlan {
    let namespaces = Snapshot {
        namespaces: book.identities.namespaces.clone(),
        ..Snapshot::default()
    };
    let mut local = BTreeMap::new();
    let mut closed = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for (id, own) in pods {
        let key = own.pod.and_then(|pod| spec.relevance.key(&namespaces, id, pod));
        let number = key.as_ref().and_then(|key| book.identities.numbers.get(key));
        numbers.insert(id.clone(), number.copied().unwrap_or(UNKNOWN_IDENTITY));
        let is_over = own.pod.is_some_and(|pod| pod.terminated);
        let why = if is_over {
            Some(Closed::Over)
        } else {
            why_closed(spec, book, key.as_ref(), number.copied())
        };
        match why {
            Some(why) => {
                closed.insert(id.clone(), why);
            }
            None => local.extend(key.map(|key| (id.clone(), key))),
        }
    }
    let elsewhere = || {
        book.pods
            .iter()
            .filter(|(id, pod)| pod.node != node && !pods.contains_key(id))
    };
    let (mut addresses, second) = owners(
        node,
        book.nodes.iter().map(|(name, node)| (name, &node.addresses)),
        pods.iter()
            .map(|(id, own)| (id, own.addresses))
            .chain(elsewhere().map(|(id, pod)| (id, &pod.addresses))),
    );
    for (address, id) in second {
        let Some(Owner::Pod(first)) = addresses.get(&address) else {
            continue;
        };
        // One of the two has it no more, and nobody can tell which.
        let identity = |id| book.pods.get(id).map(|pod| pod.identity);
        if !pods.contains_key(first) && identity(first) != identity(id) {
            addresses.insert(address, Owner::SomePod);
        }
    }
    numbers.extend(elsewhere().map(|(id, pod)| (id.clone(), pod.identity)));
    let plan = Plan {
        resolved: resolve(&spec.policies, &book.identities.numbers, &local),
        identity_numbers: book.identities.digests.clone(),
        pods: numbers,
        addresses,
        pod_ranges: pod_ranges(node, book),
        flow_logs: spec.flow_logs.clone(),
        problems: Vec::new(),
    };
    NodePlan { plan, closed }
}

/// The pod CIDRs of other nodes, and what in them is no pod of theirs.
fn pod_ranges(node: &str, book: &AddressBook) -> BTreeMap<CidrKey, bool> {
    let (own, others): (Vec<_>, Vec<_>) = book.nodes.iter().partition(|(name, _)| *name == node);
    let cidrs = |nodes: &[(&String, &NodeEntry)]| -> BTreeSet<IpNet> {
        nodes
            .iter()
            .flat_map(|(_, entry)| &entry.pod_cidrs)
            .copied()
            .collect()
    };
    let of_others: BTreeMap<CidrKey, bool> = cidrs(&others)
        .into_iter()
        .map(|cidr| (cidr_key(cidr), true))
        .collect();
    let around = Trie::new(&of_others);
    let own_cidrs = cidrs(&own).into_iter().map(cidr_key);
    let nodes = book.nodes.values().flat_map(|entry| &entry.addresses);
    let nodes = nodes.map(|address| host(Address::from_ip(*address)));
    let exceptions: Vec<_> = own_cidrs
        .chain(nodes)
        .filter(|key| around.around(*key).is_some())
        .map(|key| (key, false))
        .collect();
    of_others.into_iter().chain(exceptions).collect()
}

/// Why a pod of this identity is closed, if it is.
fn why_closed(
    spec: &NodeSpec,
    book: &AddressBook,
    key: Option<&IdentityKey>,
    number: Option<IdentityNumber>,
) -> Option<Closed> {
    let Some(key) = key else {
        return Some(Closed::Unknown);
    };
    let Some(number) = number else {
        return Some(Closed::NoIdentity);
    };
    let covered = spec.covers.contains(&number)
        || spec
            .covers
            .iter()
            .any(|covered| book.identities.canonical(*covered) == Some(number));
    if !covered {
        return Some(Closed::NotCovered(number));
    }
    let not_understood = spec.not_understood.iter().find(|policy| policy.closes(key));
    not_understood.map(|policy| Closed::Policy(policy.what.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use weir_policy::arbitrary;
    use weir_policy::cluster::Cluster;
    use weir_policy::evaluate::{Answer, End, Facts, Judgement, evaluate};
    use weir_policy::resolved::{Flow, UNKNOWN_POD, Verdict};

    use super::*;
    use crate::address_book::{Identities, PodEntry};
    use crate::node_spec::{Closes, NotUnderstood};
    use crate::plan::{identity_digest, plan};

    /// What the operator tells a node of the cluster: numbers with gaps, so that none is right by accident.
    fn told(cluster: &Cluster, node: &str) -> (NodeSpec, AddressBook) {
        let spec = NodeSpec {
            relevance: weir_policy::identity::Relevance::of(cluster.lowered.policies.values()),
            covers: cluster
                .keys
                .iter()
                .filter(|(id, _)| cluster.snapshot.pods[*id].node == node)
                .map(|(_, key)| cluster.identities[key])
                .collect(),
            policies: cluster.lowered.policies.clone(),
            flow_logs: cluster.lowered.flow_logs.clone(),
            ..NodeSpec::default()
        };
        let identities = Identities {
            numbers: cluster.identities.clone(),
            keys: cluster
                .identities
                .iter()
                .map(|(key, number)| (*number, Arc::new(key.clone())))
                .collect(),
            digests: cluster
                .identities
                .iter()
                .map(|(key, number)| (identity_digest(key), *number))
                .collect(),
            namespaces: cluster.snapshot.namespaces.clone(),
            ..Identities::default()
        };
        let pods = cluster.keys.iter().map(|(id, key)| {
            let pod = &cluster.snapshot.pods[id];
            let entry = PodEntry {
                node: pod.node.clone(),
                identity: cluster.identities[key],
                addresses: pod.addresses.clone(),
            };
            (id.clone(), entry)
        });
        let nodes = cluster.snapshot.nodes.iter().map(|(name, node)| {
            let entry = NodeEntry {
                addresses: node.addresses.clone(),
                ..NodeEntry::default()
            };
            (name.clone(), entry)
        });
        let book = AddressBook {
            identities: Arc::new(identities),
            pods: pods.collect(),
            nodes: nodes.collect(),
            ..AddressBook::default()
        };
        (spec, book)
    }

    fn own_pods<'a>(cluster: &'a Cluster, node: &str) -> BTreeMap<PodId, OwnPod<'a>> {
        let here = cluster
            .keys
            .keys()
            .filter(|id| cluster.snapshot.pods[*id].node == node);
        here.map(|id| {
            let pod = &cluster.snapshot.pods[id];
            let own = OwnPod {
                pod: Some(pod),
                addresses: &pod.addresses,
            };
            (id.clone(), own)
        })
        .collect()
    }

    fn unknown() -> End {
        End {
            local: None,
            identity: Some(UNKNOWN_POD),
        }
    }

    /// What a plan says of a flow.
    fn judged(plan: &Plan, snapshot: &Snapshot, node: &str, flow: &Flow) -> Answer {
        let ranges = Trie::new(&plan.pod_ranges);
        let is_in_pod_range = |address| ranges.around(host(Address::from_ip(address))) == Some(&true);
        let end = |address| match plan.addresses.get(&address) {
            Some(Owner::Pod(id)) => End {
                local: snapshot
                    .pods
                    .get(id)
                    .filter(|pod| pod.node == node)
                    .map(|_| id.clone()),
                identity: plan.pods.get(id).copied(),
            },
            Some(Owner::SomePod) => unknown(),
            None if is_in_pod_range(address) => unknown(),
            Some(Owner::ThisNode | Owner::OtherNode(_)) | None => End::default(),
        };
        let facts = Facts {
            source: end(flow.source),
            destination: end(flow.destination),
            exempt: false,
        };
        evaluate(&plan.resolved, flow, &facts)
    }

    /// The same, with the rules that it names.
    fn answer(plan: &Plan, snapshot: &Snapshot, node: &str, flow: &Flow) -> String {
        let Answer { egress, ingress } = judged(plan, snapshot, node, flow);
        let words = |judgement: Option<Judgement>| {
            judgement.map(|judgement| {
                [judgement.enforced, judgement.dry_run].map(|ruling| {
                    let cause = ruling.cause.map(|cause| &plan.resolved.causes[cause as usize]);
                    format!("{:?} {cause:?}", ruling.verdict)
                })
            })
        };
        format!("{:?} {:?}", words(egress), words(ingress))
    }

    fn cases() -> impl Strategy<Value = (Snapshot, Vec<Flow>)> {
        arbitrary::snapshot().prop_flat_map(|snapshot| {
            let flows = arbitrary::some_flows(&snapshot, 40);
            (Just(snapshot), flows)
        })
    }

    proptest! {
        #[test]
        fn the_agent_comes_to_what_standalone_mode_comes_to((snapshot, flows) in cases()) {
            let cluster = Cluster::numbered(snapshot, |index| 100 + 3 * index);
            for node in cluster.snapshot.nodes.keys() {
                let (spec, book) = told(&cluster, node);
                let here = node_plan(&spec, node, &book, &own_pods(&cluster, node));
                prop_assert_eq!(&here.closed, &BTreeMap::new());
                let alone = plan(&cluster.snapshot, node, &BTreeMap::new());
                prop_assert_eq!(&here.plan.addresses, &alone.addresses);
                for flow in &flows {
                    prop_assert_eq!(
                        answer(&here.plan, &cluster.snapshot, node, flow),
                        answer(&alone, &cluster.snapshot, node, flow)
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_pod_that_the_book_does_not_have_yet_is_allowed_no_more_than_when_it_has(
            (snapshot, flows) in cases(),
            known in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let cluster = Cluster::new(snapshot);
            for node in cluster.snapshot.nodes.keys() {
                let (spec, mut book) = told(&cluster, node);
                for (name, entry) in &mut book.nodes {
                    let index = if name == "node-1" { 0 } else { 1 };
                    let cidrs = [format!("10.0.{index}.0/24"), format!("fd00:0:0:{}::/64", index + 1)];
                    entry.pod_cidrs = cidrs.map(|cidr| cidr.parse().expect("a CIDR")).into();
                }
                let own = own_pods(&cluster, node);
                let after = node_plan(&spec, node, &book, &own).plan;
                let mut known = known.iter().cycle();
                book.pods.retain(|_, _| known.next() == Some(&true));
                let before = node_plan(&spec, node, &book, &own).plan;
                for flow in &flows {
                    let [before, after] =
                        [&before, &after].map(|plan| judged(plan, &cluster.snapshot, node, flow));
                    for (before, after) in [(before.egress, after.egress), (before.ingress, after.ingress)] {
                        let allows = |judgement: Option<Judgement>| {
                            judgement.map(|it| [it.enforced.verdict, it.dry_run.verdict].map(|it| it == Verdict::Allow))
                        };
                        let (before, after) = (allows(before), allows(after));
                        prop_assert_eq!(before.is_some(), after.is_some());
                        let pairs = before.into_iter().flatten().zip(after.into_iter().flatten());
                        prop_assert!(pairs.clone().all(|(before, after)| after || !before), "{:?}", flow);
                    }
                }
            }
        }
    }

    #[test]
    fn ranges_are_of_other_nodes_pods_and_of_nobody_else() {
        let mut book = book(&[]);
        let node = |addresses: &[&str], cidrs: &[&str]| NodeEntry {
            addresses: addresses
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
            pod_cidrs: cidrs.iter().map(|text| text.parse().expect("a CIDR")).collect(),
        };
        book.nodes.insert(
            "n1".to_owned(),
            node(&["192.0.2.1"], &["10.2.1.0/24", "fd00:1::/64"]),
        );
        // A node speaks by an address of its pod CIDR, and has one around that of this node.
        book.nodes.insert(
            "n2".to_owned(),
            node(&["192.0.2.2", "10.2.0.1"], &["10.2.0.0/16"]),
        );
        let key = |text: &str| cidr_key(text.parse().expect("a CIDR"));
        let expected = BTreeMap::from([
            (key("10.2.0.0/16"), true),
            (key("10.2.1.0/24"), false),
            (key("10.2.0.1/32"), false),
        ]);
        let planned = node_plan(&NodeSpec::default(), "n1", &book, &BTreeMap::new());
        assert_eq!(planned.plan.pod_ranges, expected);
    }

    #[test]
    fn of_two_pods_elsewhere_with_one_address_nobody_can_tell_which() {
        let mut book = book(&[("web", 1), ("db", 2)]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let entry = |identity, addresses: &[&str]| PodEntry {
            node: "n2".to_owned(),
            identity,
            addresses: addresses.iter().map(|text| ip(text)).collect(),
        };
        book.pods
            .insert(PodId::new("shop", "old"), entry(1, &["10.2.0.1"]));
        book.pods
            .insert(PodId::new("shop", "same"), entry(1, &["10.2.0.2", "10.1.0.1"]));
        book.pods
            .insert(PodId::new("shop", "new"), entry(2, &["10.2.0.1"]));
        book.pods
            .insert(PodId::new("shop", "new-too"), entry(1, &["10.2.0.2"]));
        let addresses = vec![ip("10.1.0.1")];
        let own = OwnPod {
            pod: None,
            addresses: &addresses,
        };
        let pods = BTreeMap::from([(PodId::new("shop", "zero"), own)]);
        let planned = node_plan(&NodeSpec::default(), "n1", &book, &pods);
        let expected = BTreeMap::from([
            // Its own node knows best.
            (ip("10.1.0.1"), Owner::Pod(PodId::new("shop", "zero"))),
            (ip("10.2.0.1"), Owner::SomePod),
            (ip("10.2.0.2"), Owner::Pod(PodId::new("shop", "new-too"))),
        ]);
        assert_eq!(planned.plan.addresses, expected);
    }

    fn pod(labels: &[(&str, &str)]) -> Pod {
        Pod {
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            node: "n1".to_owned(),
            ..Pod::default()
        }
    }

    fn key(app: &str) -> IdentityKey {
        IdentityKey {
            namespace: "shop".to_owned(),
            pod_labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            namespace_labels: BTreeMap::new(),
            named_ports: BTreeMap::new(),
        }
    }

    fn book(identities: &[(&str, IdentityNumber)]) -> AddressBook {
        let numbers = identities.iter().map(|(app, number)| (key(app), *number));
        AddressBook {
            identities: Arc::new(Identities {
                numbers: numbers.clone().collect(),
                keys: numbers.map(|(key, number)| (number, Arc::new(key))).collect(),
                ..Identities::default()
            }),
            ..AddressBook::default()
        }
    }

    #[test]
    fn a_pod_is_closed_until_everything_about_it_is_known() {
        let mut spec = NodeSpec {
            covers: BTreeSet::from([1, 3]),
            not_understood: vec![NotUnderstood {
                what: "ClusterNetworkPolicy new".to_owned(),
                error: String::new(),
                closes: Closes::Nobody,
            }],
            ..NodeSpec::default()
        };
        spec.relevance.pod_labels.insert("app".to_owned());
        let book = book(&[("web", 1), ("db", 2), ("old", 3)]);
        let addresses = Vec::new();
        let known = [("web", "web-1"), ("db", "db-1"), ("new", "new-1")]
            .map(|(app, name)| (PodId::new("shop", name), pod(&[("app", app), ("job", name)])));
        let mut pods: BTreeMap<PodId, OwnPod<'_>> = known
            .iter()
            .map(|(id, pod)| {
                let own = OwnPod {
                    pod: Some(pod),
                    addresses: &addresses,
                };
                (id.clone(), own)
            })
            .collect();
        let nameless = OwnPod {
            pod: None,
            addresses: &addresses,
        };
        pods.insert(PodId::new("shop", "nameless"), nameless);
        let ended = Pod {
            terminated: true,
            ..pod(&[("app", "web")])
        };
        let ended = OwnPod {
            pod: Some(&ended),
            addresses: &addresses,
        };
        pods.insert(PodId::new("shop", "ended"), ended);
        let planned = node_plan(&spec, "n1", &book, &pods);
        let id = |name: &str| PodId::new("shop", name);
        let expected = BTreeMap::from([
            (id("db-1"), Closed::NotCovered(2)),
            (id("ended"), Closed::Over),
            (id("nameless"), Closed::Unknown),
            (id("new-1"), Closed::NoIdentity),
        ]);
        assert_eq!(planned.closed, expected);
        let numbers = BTreeMap::from([
            (id("db-1"), 2),
            (id("ended"), UNKNOWN_IDENTITY),
            (id("nameless"), UNKNOWN_IDENTITY),
            (id("new-1"), UNKNOWN_IDENTITY),
            (id("web-1"), 1),
        ]);
        assert_eq!(planned.plan.pods, numbers);

        spec.not_understood[0].closes = Closes::Everybody;
        let planned = node_plan(&spec, "n1", &book, &pods);
        assert_eq!(
            planned.closed[&id("web-1")],
            Closed::Policy("ClusterNetworkPolicy new".to_owned())
        );
    }

    #[test]
    fn the_agent_knows_best_what_addresses_its_pods_have() {
        let spec = NodeSpec::default();
        let mut book = book(&[("web", 1)]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let entry = |node: &str, address: &str| PodEntry {
            node: node.to_owned(),
            identity: 1,
            addresses: vec![ip(address)],
        };
        // Gone from here, and here under another address than the book says; and one that is elsewhere.
        book.pods
            .insert(PodId::new("shop", "gone"), entry("n1", "10.1.0.1"));
        book.pods
            .insert(PodId::new("shop", "here"), entry("n1", "10.1.0.2"));
        book.pods
            .insert(PodId::new("shop", "there"), entry("n2", "10.2.0.1"));
        let addresses = vec![ip("10.1.0.1")];
        let pods = BTreeMap::from([(
            PodId::new("shop", "here"),
            OwnPod {
                pod: None,
                addresses: &addresses,
            },
        )]);
        let planned = node_plan(&spec, "n1", &book, &pods);
        let expected = BTreeMap::from([
            (ip("10.1.0.1"), Owner::Pod(PodId::new("shop", "here"))),
            (ip("10.2.0.1"), Owner::Pod(PodId::new("shop", "there"))),
        ]);
        assert_eq!(planned.plan.addresses, expected);
    }
}
