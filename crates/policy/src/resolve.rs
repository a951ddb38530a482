//! Policies × identities → the decisions for the pods of one node.
//!
//! Work is done once for what is equal: pods are grouped by identity, groups by the policies that apply to them, peers
//! by the rules that match them. So the cost depends on how many different things there are, not on how many pods.

mod cidrs;
mod peers;
mod ports;
mod side;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{IdentityKey, NamedPorts};
use crate::model::{Namespaces, Policy, PolicyRef, PortMatch, Ports, Rule};
use crate::resolved::{Cause, CauseIndex, Direction, IdentityNumber, PolicySet, Resolved, Side};
use crate::snapshot::PodId;

/// Resolves the policies for the pods `local` of one node.
///
/// Every identity that a peer can have is in `identities`, and the keys there and in `local` cover what the policies
/// look at: they are made by a [`Relevance`](crate::identity::Relevance) that includes that of these policies.
#[must_use]
pub fn resolve(
    policies: &BTreeMap<PolicyRef, Policy>,
    identities: &BTreeMap<IdentityKey, IdentityNumber>,
    local: &BTreeMap<PodId, IdentityKey>,
) -> Resolved {
    let policies: Vec<&Policy> = policies.values().collect();
    let groups = group(&policies, local);
    let keys: BTreeSet<&SideKey> = groups
        .values()
        .flat_map(|group| [&group.ingress, &group.egress])
        .collect();
    let used: BTreeSet<usize> = keys.iter().flat_map(|key| key.policies.iter().copied()).collect();
    let context = Context {
        causes: causes(&policies, &keys),
        cidrs: cidrs::Tree::new(used.iter().map(|&index| policies[index])),
        peers: peers::Members::new(used.iter().map(|&index| policies[index]), identities),
        policies,
    };
    let mut tables = ports::Tables::default();
    let sides: BTreeMap<&SideKey, Side> = keys
        .into_iter()
        .map(|key| (key, side::side(key, &context, &mut tables)))
        .collect();
    let (sets, pods) = assign(&groups, &sides);
    Resolved {
        causes: context.causes,
        cidrs: context.cidrs.into_cidrs(),
        port_tables: tables.into_tables(),
        sets,
        pods,
    }
}

/// What the decisions of one side follow from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SideKey {
    direction: Direction,
    /// Indices of the policies that say something of this direction, ascending.
    policies: Vec<usize>,
    /// For ingress, the subject's ports whose names the policies use. For egress, empty: there the peer's names count.
    named_ports: NamedPorts,
}

/// What is the same for all sides.
struct Context<'a> {
    policies: Vec<&'a Policy>,
    /// Sorted.
    causes: Vec<Cause>,
    cidrs: cidrs::Tree,
    peers: peers::Members<'a>,
}

impl Context<'_> {
    /// The index of a cause that [`causes`] has listed.
    fn cause(&self, cause: &Cause) -> CauseIndex {
        let index = self.causes.binary_search(cause).unwrap_or_default();
        CauseIndex::try_from(index).unwrap_or(CauseIndex::MAX)
    }
}

/// Local pods of one identity, and the sides that hold for them.
struct Group<'a> {
    pods: Vec<&'a PodId>,
    ingress: SideKey,
    egress: SideKey,
}

fn group<'a>(
    policies: &[&Policy],
    local: &'a BTreeMap<PodId, IdentityKey>,
) -> BTreeMap<&'a IdentityKey, Group<'a>> {
    let mut pods = BTreeMap::<&IdentityKey, Vec<&PodId>>::new();
    for (pod, key) in local {
        pods.entry(key).or_default().push(pod);
    }
    let subjects = Subjects::new(policies);
    let group = |key: &IdentityKey, pods| {
        let selected = subjects.selecting(key);
        Group {
            pods,
            ingress: side_key(policies, &selected, Direction::Ingress, &key.named_ports),
            egress: side_key(policies, &selected, Direction::Egress, &NamedPorts::new()),
        }
    };
    pods.into_iter()
        .map(|(key, pods)| (key, group(key, pods)))
        .collect()
}

/// Finds the policies that select an identity, without asking those of other namespaces.
struct Subjects<'a> {
    policies: &'a [&'a Policy],
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    by_label: Vec<usize>,
}

impl<'a> Subjects<'a> {
    fn new(policies: &'a [&'a Policy]) -> Self {
        let mut subjects = Self {
            policies,
            by_namespace: BTreeMap::new(),
            by_label: Vec::new(),
        };
        for (index, policy) in policies.iter().enumerate() {
            match &policy.subject.namespaces {
                Namespaces::Named(name) => subjects.by_namespace.entry(name).or_default().push(index),
                Namespaces::Labelled(_) => subjects.by_label.push(index),
            }
        }
        subjects
    }

    /// Ascending.
    fn selecting(&self, key: &IdentityKey) -> Vec<usize> {
        let candidates = self
            .by_namespace
            .get(key.namespace.as_str())
            .into_iter()
            .flatten()
            .chain(&self.by_label);
        let selecting = candidates
            .copied()
            .filter(|&index| self.policies[index].subject.matches(key));
        let mut selecting: Vec<usize> = selecting.collect();
        selecting.sort_unstable();
        selecting
    }
}

fn side_key(policies: &[&Policy], selected: &[usize], direction: Direction, ports: &NamedPorts) -> SideKey {
    let policies_of_side = selected
        .iter()
        .copied()
        .filter(|&index| !policies[index].rules(direction).is_empty());
    let policies_of_side: Vec<usize> = policies_of_side.collect();
    let mut named_ports = NamedPorts::new();
    for name in policies_of_side
        .iter()
        .flat_map(|&index| port_names(policies[index], direction))
    {
        if let Some((name, ports)) = ports.get_key_value(name) {
            named_ports.entry(name.clone()).or_insert_with(|| ports.clone());
        }
    }
    SideKey {
        direction,
        policies: policies_of_side,
        named_ports,
    }
}

fn port_names(policy: &Policy, direction: Direction) -> impl Iterator<Item = &str> {
    policy.rules(direction).rules.iter().flat_map(|rule| {
        let ports = match &rule.ports {
            Ports::Any => [].as_slice(),
            Ports::Of(ports) => ports,
        };
        ports.iter().filter_map(|port| match port {
            PortMatch::Named { name, .. } => Some(name.as_str()),
            PortMatch::Range { .. } => None,
        })
    })
}

/// Every cause that a slot of these sides can have.
fn causes(policies: &[&Policy], keys: &BTreeSet<&SideKey>) -> Vec<Cause> {
    let mut causes = BTreeSet::new();
    let mut done = BTreeSet::new();
    for key in keys {
        for &index in &key.policies {
            if done.insert((key.direction, index)) {
                causes.extend(rule_causes(policies[index], key.direction));
            }
        }
        let isolation = Isolation::of(policies, key);
        causes.extend([isolation.enforced, isolation.dry_run].into_iter().flatten());
    }
    causes.into_iter().collect()
}

fn rule_causes(policy: &Policy, direction: Direction) -> impl Iterator<Item = Cause> {
    policy
        .rules(direction)
        .rules
        .iter()
        .map(move |rule| rule_cause(policy, rule, direction))
}

fn rule_cause(policy: &Policy, rule: &Rule, direction: Direction) -> Cause {
    Cause::Rule {
        policy: policy.reference.clone(),
        tier: policy.tier,
        direction,
        index: rule.index,
        name: rule.name.clone(),
        action: rule.action,
    }
}

/// Why what no NetworkPolicy allows is denied, if it is.
struct Isolation {
    enforced: Option<Cause>,
    /// If the dry-run policies were in force too.
    dry_run: Option<Cause>,
}

impl Isolation {
    fn of(policies: &[&Policy], key: &SideKey) -> Self {
        let isolating = || {
            let policies = key.policies.iter().map(|&index| policies[index]);
            policies.filter(|policy| policy.rules(key.direction).isolates)
        };
        let cause = |policies: BTreeSet<PolicyRef>| {
            let policies: Vec<PolicyRef> = policies.into_iter().collect();
            (!policies.is_empty()).then_some(Cause::Isolated {
                policies,
                direction: key.direction,
            })
        };
        let reference = |policy: &Policy| policy.reference.clone();
        Self {
            enforced: cause(
                isolating()
                    .filter(|policy| !policy.dry_run)
                    .map(reference)
                    .collect(),
            ),
            dry_run: cause(isolating().map(reference).collect()),
        }
    }
}

/// The distinct policy sets, and the set of each pod that is restricted in some direction.
fn assign(
    groups: &BTreeMap<&IdentityKey, Group<'_>>,
    sides: &BTreeMap<&SideKey, Side>,
) -> (Vec<PolicySet>, BTreeMap<PodId, usize>) {
    let set = |group: &Group<'_>| PolicySet {
        ingress: sides.get(&group.ingress).cloned().unwrap_or_default(),
        egress: sides.get(&group.egress).cloned().unwrap_or_default(),
    };
    let mut members = BTreeMap::<PolicySet, Vec<&PodId>>::new();
    for group in groups.values() {
        let set = set(group);
        if set != PolicySet::default() {
            members.entry(set).or_default().extend(&group.pods);
        }
    }
    let mut sets = Vec::with_capacity(members.len());
    let mut pods = BTreeMap::new();
    for (index, (set, members)) in members.into_iter().enumerate() {
        sets.push(set);
        pods.extend(members.into_iter().map(|pod| (pod.clone(), index)));
    }
    (sets, pods)
}
