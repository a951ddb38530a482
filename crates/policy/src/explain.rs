//! Which rule came nearest to allowing what isolation denied, and on which field it missed.

use std::fmt;
use std::net::IpAddr;

use std::collections::BTreeMap;

use crate::model::{
    Namespaces, Network, Peer, Peers, PodSelector, Policy, PolicyRef, PortMatch, Ports, Protocol, Rule,
};
use crate::resolved::{Direction, Flow};
use crate::selector::{Operator, Requirement, Selector};
use crate::snapshot::{Pod, PodId, Snapshot};

/// A rule that would allow the flow if it did not miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    pub policy: PolicyRef,
    pub direction: Direction,
    /// Index of the rule in its list, from 0.
    pub index: usize,
    /// Not empty.
    pub misses: Vec<Miss>,
}

/// A part of a rule that does not match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Miss {
    pub field: Field,
    /// What the flow has and what the rule asks for, such as `label app is "other", not "foo"`.
    pub because: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    NamespaceSelector,
    PodSelector,
    IpBlock,
    Protocol,
    Port,
}

/// The rule of the NetworkPolicies that isolate the flow's subject which misses in the fewest parts; of several, the
/// first by policy and index. Policies in dry run are not looked at.
///
/// `None` if the subject is no pod, nothing isolates it, no rule is there to miss, or some rule allows the flow.
#[must_use]
pub fn nearest(
    snapshot: &Snapshot,
    policies: &BTreeMap<PolicyRef, Policy>,
    flow: &Flow,
    direction: Direction,
) -> Option<NearMiss> {
    let view = View::new(snapshot, flow, direction);
    let subject = view.subject?;
    let isolating = policies.values().filter(|policy| {
        !policy.dry_run && policy.rules(direction).isolates && view.selects(&policy.subject, subject)
    });
    let candidates = isolating.flat_map(|policy| {
        let rules = policy.rules(direction).rules.iter();
        rules.map(|rule| NearMiss {
            policy: policy.reference.clone(),
            direction,
            index: rule.index,
            misses: view.misses(rule),
        })
    });
    let nearest = candidates.min_by_key(|candidate| candidate.misses.len())?;
    (!nearest.misses.is_empty()).then_some(nearest)
}

/// The flow as the subject sees it.
struct View<'a> {
    snapshot: &'a Snapshot,
    flow: &'a Flow,
    direction: Direction,
    subject: Option<(&'a PodId, &'a Pod)>,
    peer: Option<(&'a PodId, &'a Pod)>,
    peer_address: IpAddr,
    destination: Option<(&'a PodId, &'a Pod)>,
}

impl<'a> View<'a> {
    fn new(snapshot: &'a Snapshot, flow: &'a Flow, direction: Direction) -> Self {
        let at = |address| {
            let mut pods = snapshot.pods.iter();
            pods.find(|(_, pod)| pod.is_on_pod_network() && pod.addresses.contains(&address))
        };
        let (source, destination) = (at(flow.source), at(flow.destination));
        let (subject, peer, peer_address) = match direction {
            Direction::Ingress => (destination, source, flow.source),
            Direction::Egress => (source, destination, flow.destination),
        };
        Self {
            snapshot,
            flow,
            direction,
            subject,
            peer,
            peer_address,
            destination,
        }
    }

    fn selects(&self, selector: &PodSelector, (id, pod): (&PodId, &Pod)) -> bool {
        self.namespace_miss(selector, id).is_none() && pod_miss(selector, pod).is_none()
    }

    /// The fewest misses that any peer and any port of the rule have together.
    fn misses(&self, rule: &Rule) -> Vec<Miss> {
        let peers = match &rule.peers {
            Peers::Any => vec![(Vec::new(), true)],
            Peers::Of(peers) => peers
                .iter()
                .map(|peer| (self.peer_misses(peer), self.has_port_names(peer)))
                .collect(),
        };
        let ways = peers.into_iter().map(|(mut misses, named)| {
            misses.extend(self.ports_misses(&rule.ports, named));
            misses
        });
        ways.min_by_key(Vec::len).unwrap_or_default()
    }

    fn peer_misses(&self, peer: &Peer) -> Vec<Miss> {
        match (peer, self.peer) {
            (Peer::Network(network), _) => network_miss(network, self.peer_address).into_iter().collect(),
            (Peer::Pods(selector), Some((id, pod))) => self
                .namespace_miss(selector, id)
                .into_iter()
                .chain(pod_miss(selector, pod))
                .collect(),
            (Peer::Pods(_), None) => {
                let because = format!("{} is not the address of a pod", self.peer_address);
                let miss = |field| Miss {
                    field,
                    because: because.clone(),
                };
                vec![miss(Field::NamespaceSelector), miss(Field::PodSelector)]
            }
        }
    }

    fn namespace_miss(&self, selector: &PodSelector, id: &PodId) -> Option<Miss> {
        let because = match &selector.namespaces {
            Namespaces::Named(name) if *name == id.namespace => return None,
            Namespaces::Named(name) => format!("namespace is {:?}, not {name:?}", id.namespace),
            Namespaces::Labelled(selector) => {
                unmet(selector, |key| self.snapshot.namespace_label(&id.namespace, key))?
            }
        };
        Some(Miss {
            field: Field::NamespaceSelector,
            because,
        })
    }

    /// An address that was matched by a CIDR has no port names, unless it is the subject that has them.
    fn has_port_names(&self, peer: &Peer) -> bool {
        self.direction == Direction::Ingress || matches!(peer, Peer::Pods(_))
    }

    fn ports_misses(&self, ports: &Ports, named: bool) -> Vec<Miss> {
        let Ports::Of(ports) = ports else {
            return Vec::new();
        };
        let ways = ports.iter().map(|port| self.port_misses(port, named));
        ways.min_by_key(Vec::len).unwrap_or_default()
    }

    fn port_misses(&self, port: &PortMatch, named: bool) -> Vec<Miss> {
        match port {
            PortMatch::Range {
                protocol,
                first,
                last,
            } => {
                let found = self.flow.destination_port;
                let hit = (*first..=*last).contains(&found);
                let wanted = if first == last {
                    first.to_string()
                } else {
                    format!("{first} to {last}")
                };
                let because = || format!("port is {found}, not {wanted}");
                let miss = (!hit).then(|| Miss {
                    field: Field::Port,
                    because: because(),
                });
                self.protocol_miss(*protocol).into_iter().chain(miss).collect()
            }
            PortMatch::Named { protocol, name } => {
                let protocol_miss = protocol.and_then(|protocol| self.protocol_miss(protocol));
                protocol_miss
                    .into_iter()
                    .chain(self.name_miss(*protocol, name, named))
                    .collect()
            }
        }
    }

    fn protocol_miss(&self, wanted: Protocol) -> Option<Miss> {
        let because = format!(
            "protocol number is {}, not {} ({wanted})",
            self.flow.protocol,
            wanted.number()
        );
        (self.flow.protocol != wanted.number()).then_some(Miss {
            field: Field::Protocol,
            because,
        })
    }

    fn name_miss(&self, protocol: Option<Protocol>, name: &str, named: bool) -> Option<Miss> {
        let found = self.flow.destination_port;
        let because = match self.destination.filter(|_| named) {
            None => format!("the destination was matched by its address, which has no port named {name:?}"),
            Some((id, pod)) => {
                let of_name = pod.named_ports.iter().filter(|port| port.name == name);
                let mut numbers = of_name
                    .filter(|port| protocol.is_none_or(|it| it == port.protocol))
                    .peekable();
                if numbers.peek().is_none() {
                    format!("pod {id} has no port named {name:?}")
                } else if numbers
                    .any(|port| port.port == found && port.protocol.number() == self.flow.protocol)
                {
                    return None;
                } else {
                    format!("port is {found}, which pod {id} does not call {name:?}")
                }
            }
        };
        Some(Miss {
            field: Field::Port,
            because,
        })
    }
}

fn pod_miss(selector: &PodSelector, pod: &Pod) -> Option<Miss> {
    let because = unmet(&selector.pods, |key| pod.labels.get(key).map(String::as_str))?;
    Some(Miss {
        field: Field::PodSelector,
        because,
    })
}

fn network_miss(network: &Network, address: IpAddr) -> Option<Miss> {
    let because = if !network.cidr.contains(&address) {
        format!("{address} is not in {}", network.cidr)
    } else {
        let exception = network
            .except
            .iter()
            .find(|exception| exception.contains(&address))?;
        format!("{address} is in {}, which is excepted", exception)
    };
    Some(Miss {
        field: Field::IpBlock,
        because,
    })
}

/// The first requirement that does not hold.
fn unmet<'a>(selector: &Selector, label: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let requirement = selector
        .requirements()
        .find(|requirement| !requirement.matches(label(&requirement.key)))?;
    Some(describe(requirement, label(&requirement.key)))
}

fn describe(requirement: &Requirement, found: Option<&str>) -> String {
    let key = &requirement.key;
    let found = found.map_or_else(|| "absent".to_owned(), |value| format!("{value:?}"));
    let wanted = match &requirement.operator {
        Operator::In(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            format!("not {}", values.join(" or "))
        }
        Operator::NotIn(_) => "which is ruled out".to_owned(),
        Operator::Exists => "and must be there".to_owned(),
        Operator::DoesNotExist => "and must not be there".to_owned(),
    };
    format!("label {key} is {found}, {wanted}")
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NamespaceSelector => "namespaceSelector",
            Self::PodSelector => "podSelector",
            Self::IpBlock => "ipBlock",
            Self::Protocol => "protocol",
            Self::Port => "port",
        })
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "{} spec.{list}[{}] came nearest", self.policy, self.index)?;
        let mut separator = ": ";
        for miss in &self.misses {
            write!(f, "{separator}{} ({})", miss.field, miss.because)?;
            separator = "; ";
        }
        Ok(())
    }
}
