//! What the nodes' kernels do with a flow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use weir_operator::existing::from_api;
use weir_policy::evaluate::{End, Facts, evaluate};
use weir_policy::identity::{IdentityKey, Relevance};
use weir_policy::model::{Policy, PolicyRef};
use weir_policy::resolve;
use weir_policy::resolved::{Flow, Resolved, Verdict};
use weir_policy::snapshot::{Pod, PodId, Snapshot};

use crate::simulation::Simulation;

/// All kernels at one moment.
pub(crate) struct Kernels<'a> {
    simulation: &'a Simulation,
    /// Of the pods that their kernels' specs cover; the others are closed.
    pods: BTreeMap<&'a PodId, Resolved>,
}

impl<'a> Kernels<'a> {
    /// By what the kernels hold and the book says.
    pub(crate) fn of(simulation: &'a Simulation) -> Self {
        let identities = simulation.identities();
        let pods = simulation.cluster.snapshot.pods.iter();
        let pods = pods.filter_map(|(id, pod)| {
            let spec = simulation.kernels.get(&pod.node)?;
            Some((id, resolved(simulation, &identities, spec, (id, pod))?))
        });
        Self {
            simulation,
            pods: pods.collect(),
        }
    }

    /// What holds for each end of a flow that is a pod.
    pub(crate) fn allowed(&self, flow: &Flow) -> BTreeMap<&'static str, bool> {
        let mut sides = BTreeMap::new();
        for (side, address) in [("egress", flow.source), ("ingress", flow.destination)] {
            if let Some((id, pod)) = self.pod_at(address) {
                sides.insert(side, self.allowed_at(id, pod, side, flow));
            }
        }
        sides
    }

    fn pod_at(&self, address: IpAddr) -> Option<(&PodId, &Pod)> {
        let mut pods = self.simulation.cluster.snapshot.pods.iter();
        pods.find(|(_, pod)| pod.is_on_pod_network() && pod.addresses.contains(&address))
    }

    fn allowed_at(&self, id: &PodId, pod: &Pod, side: &str, flow: &Flow) -> bool {
        let Some(resolved) = self.pods.get(id) else {
            return false;
        };
        let end = |address| End {
            local: pod.addresses.contains(&address).then(|| id.clone()),
            identity: self.simulation.owner(address),
        };
        let (source, destination) = (end(flow.source), end(flow.destination));
        let node = self.simulation.cluster.snapshot.nodes.get(&pod.node);
        let own_node = |address| node.is_some_and(|node| node.addresses.contains(&address));
        let same = source.local.is_some() && source.local == destination.local;
        let facts = Facts {
            exempt: same || own_node(flow.source) || own_node(flow.destination),
            source,
            destination,
        };
        let answer = evaluate(resolved, flow, &facts);
        let judgement = if side == "egress" {
            answer.egress
        } else {
            answer.ingress
        };
        judgement.is_some_and(|judgement| judgement.enforced.verdict == Verdict::Allow)
    }
}

/// What an agent makes of its spec for one of its pods, if the spec covers it.
fn resolved(
    simulation: &Simulation,
    identities: &BTreeMap<IdentityKey, u32>,
    spec: &Value,
    (id, pod): (&PodId, &Pod),
) -> Option<Resolved> {
    let relevance: Relevance = from_api(serde_json::from_value(spec["relevance"].clone()).unwrap());
    let covers: BTreeSet<u32> = serde_json::from_value(spec["covers"].clone()).unwrap();
    let policies: Vec<Policy> = serde_json::from_value(spec["policies"].clone()).unwrap();
    let policies = policies
        .into_iter()
        .map(|policy| (policy.reference.clone(), policy));
    let policies: BTreeMap<PolicyRef, Policy> = policies.collect();
    // The agent knows of namespaces what the book says.
    let namespaces = simulation.namespaces();
    let known = Snapshot {
        namespaces: namespaces
            .map(|namespace| (namespace.name.clone(), namespace.labels.clone()))
            .collect(),
        ..Snapshot::default()
    };
    let key = relevance.key(&known, id, pod)?;
    let number = identities.get(&key)?;
    let local = BTreeMap::from([(id.clone(), key.clone())]);
    covers
        .contains(number)
        .then(|| resolve(&policies, identities, &local))
}
