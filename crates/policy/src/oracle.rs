//! A second judgement of a flow, straight from the words of the two APIs.
//!
//! It reads the objects of the snapshot for each flow anew, follows the documents sentence by sentence, and shares
//! nothing with `lower`, `order` and `resolve` but the vocabulary of the outcome. It is slow, and meant to be obvious.
//!
//! Sources: the field documentation of `networking.k8s.io/v1` NetworkPolicy (Kubernetes 1.36) and of
//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy (network-policy-api v0.2.0), and the page "Network
//! Policies" of kubernetes.io.

mod cluster_network_policy;
mod network_policy;
mod selector;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_api::cluster_network_policy as cnp;

use self::selector::Reading;
use crate::model::Protocol;
use crate::resolved::{Cause, Direction, Flow, Verdict};
use crate::snapshot::{Labels, Pod, PodId, Snapshot};

/// One judgement for each end that is a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At the source.
    pub egress: Option<Judgement>,
    /// At the destination.
    pub ingress: Option<Judgement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub enforced: Ruling,
    /// If the dry-run policies were in force too.
    pub dry_run: Ruling,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// The causes of which any one is right. None at all: no policy decided.
    pub causes: BTreeSet<Cause>,
}

/// Judges a flow.
#[must_use]
pub fn answer(snapshot: &Snapshot, flow: &Flow) -> Answer {
    let source = pod_at(snapshot, flow.source);
    let destination = pod_at(snapshot, flow.destination);
    let judge = |subject: Option<(&PodId, &Pod)>, direction| {
        subject.map(|(id, pod)| {
            let question = Question {
                snapshot,
                flow,
                id,
                pod,
                direction,
                source,
                destination,
            };
            if question.is_exempt() {
                return Judgement {
                    enforced: nothing_decided(),
                    dry_run: nothing_decided(),
                };
            }
            Judgement {
                enforced: question.judge(false),
                dry_run: question.judge(true),
            }
        })
    };
    Answer {
        egress: judge(source, Direction::Egress),
        ingress: judge(destination, Direction::Ingress),
    }
}

/// The pod with an address. Host-network pods have none of their own, pods that have ended have none any more.
fn pod_at(snapshot: &Snapshot, address: IpAddr) -> Option<(&PodId, &Pod)> {
    snapshot
        .pods
        .iter()
        .find(|(_, pod)| !pod.host_network && !pod.terminated && pod.addresses.contains(&address))
}

fn nothing_decided() -> Ruling {
    Ruling {
        verdict: Verdict::Allow,
        causes: BTreeSet::new(),
    }
}

/// May the subject receive (or send) this?
struct Question<'a> {
    snapshot: &'a Snapshot,
    flow: &'a Flow,
    id: &'a PodId,
    pod: &'a Pod,
    direction: Direction,
    source: Option<(&'a PodId, &'a Pod)>,
    destination: Option<(&'a PodId, &'a Pod)>,
}

impl Question<'_> {
    /// "A Pod cannot block access to itself" and "traffic to and from the node where a Pod is running is always
    /// allowed, regardless of the IP address of the Pod or the node".
    fn is_exempt(&self) -> bool {
        let node = self.snapshot.nodes.get(&self.pod.node);
        let (other_pod, other_address) = self.other();
        other_pod.is_some_and(|(id, _)| id == self.id)
            || node.is_some_and(|node| node.addresses.contains(&other_address))
    }

    fn other(&self) -> (Option<(&PodId, &Pod)>, IpAddr) {
        match self.direction {
            Direction::Ingress => (self.source, self.flow.source),
            Direction::Egress => (self.destination, self.flow.destination),
        }
    }

    /// "Admin tier, NetworkPolicy tier, Baseline tier"; "if a given connection wasn't allowed or denied by any of the
    /// tiers, the default kubernetes policy is applied, which says that all pods can communicate with each other".
    fn judge(&self, with_dry_run: bool) -> Ruling {
        self.cluster_tier(cnp::Tier::Admin, with_dry_run)
            .or_else(|| self.network_policies(with_dry_run))
            .or_else(|| self.cluster_tier(cnp::Tier::Baseline, with_dry_run))
            .unwrap_or_else(nothing_decided)
    }

    fn port_in(&self, protocol: u8, first: i32, last: i32) -> Reading {
        let is_port = |port| (1..=65535).contains(&port);
        if !is_port(first) || !is_port(last) || first > last {
            return Reading::Unclear;
        }
        let hit =
            self.flow.protocol == protocol && (first..=last).contains(&i32::from(self.flow.destination_port));
        if hit { Reading::Yes } else { Reading::No }
    }

    /// Whether the destination is a pod that calls the flow's port so.
    fn destination_names_port(&self, name: &str, protocol: Option<Protocol>) -> bool {
        self.destination.is_some_and(|(_, pod)| {
            pod.named_ports.iter().any(|port| {
                port.name == name
                    && protocol.is_none_or(|protocol| protocol == port.protocol)
                    && port.protocol.number() == self.flow.protocol
                    && port.port == self.flow.destination_port
            })
        })
    }
}

fn is_dry_run(annotations: &Labels) -> bool {
    annotations
        .get("dataplane.weir.dev/dry-run")
        .is_some_and(|value| value == "true")
}

fn parse_cidr(text: &str) -> Option<IpNet> {
    let cidr: IpNet = text.parse().ok()?;
    match cidr.addr() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => None,
        IpAddr::V4(_) | IpAddr::V6(_) => Some(cidr),
    }
}

/// "This must be an IANA_SVC_NAME."
fn is_port_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
