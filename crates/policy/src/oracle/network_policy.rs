//! "NetworkPolicy describes what network traffic is allowed for a set of Pods."

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::{Reading, may_be, read_selector, selector_is_clear, surely};
use super::{Question, Ruling, is_dry_run, is_port_name, parse_cidr};
use crate::model::{PolicyRef, Protocol, Tier};
use crate::resolved::{Action, Cause, Direction, Verdict};
use crate::snapshot::{NetworkPolicy, ObjectName};

impl Question<'_> {
    /// "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod, OR if the traffic matches at
    /// least one rule across all of the NetworkPolicy objects whose podSelector matches the pod."
    pub(super) fn network_policies(&self, with_dry_run: bool) -> Option<Ruling> {
        let policies = self.snapshot.network_policies.iter();
        let isolating: Vec<(&ObjectName, &NetworkPolicy, Reading)> = policies
            .filter(|(_, policy)| with_dry_run || !is_dry_run(&policy.annotations))
            .filter(|(_, policy)| has_policy_type(&policy.spec, self.direction))
            .map(|(id, policy)| (id, policy, self.is_selected_by(id, &policy.spec)))
            .filter(|(_, _, selected)| *selected != Reading::No)
            .collect();
        if isolating.is_empty() {
            return None;
        }
        let allowing = isolating
            .iter()
            .filter(|(_, _, selected)| *selected == Reading::Yes);
        let causes: BTreeSet<Cause> = allowing
            .flat_map(|(id, policy, _)| self.allowing_rules(id, &policy.spec))
            .collect();
        if !causes.is_empty() {
            return Some(Ruling {
                verdict: Verdict::Allow,
                causes,
            });
        }
        let references = isolating
            .iter()
            .map(|(id, _, _)| PolicyRef::network_policy(&id.namespace, &id.name));
        let cause = Cause::Isolated {
            policies: references.collect(),
            direction: self.direction,
        };
        Some(Ruling {
            verdict: Verdict::Deny,
            causes: BTreeSet::from([cause]),
        })
    }

    fn is_selected_by(&self, policy: &ObjectName, spec: &NetworkPolicySpec) -> Reading {
        if policy.namespace != self.id.namespace {
            return Reading::No;
        }
        let selector = spec.pod_selector.clone().unwrap_or_default();
        may_be(&read_selector(&selector, &|key| {
            self.pod.labels.get(key).cloned()
        }))
    }

    fn allowing_rules(&self, policy: &ObjectName, spec: &NetworkPolicySpec) -> Vec<Cause> {
        let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> = match self.direction {
            Direction::Ingress => spec
                .ingress
                .clone()
                .unwrap_or_default()
                .into_iter()
                .map(|rule| (rule.from.unwrap_or_default(), rule.ports.unwrap_or_default()))
                .collect(),
            Direction::Egress => spec
                .egress
                .clone()
                .unwrap_or_default()
                .into_iter()
                .map(|rule| (rule.to.unwrap_or_default(), rule.ports.unwrap_or_default()))
                .collect(),
        };
        let allowing = rules.into_iter().enumerate().filter(|(_, (peers, ports))| {
            // "If this field is empty or missing, this rule matches all sources."
            if peers.is_empty() {
                return self.ports_match(ports, true);
            }
            peers.iter().any(|peer| {
                // An address has no named ports; the subject of an ingress rule has, whoever the peer is.
                let has_names = peer.ip_block.is_none() || self.direction == Direction::Ingress;
                self.peer_matches(policy, peer) && self.ports_match(ports, has_names)
            })
        });
        allowing
            .map(|(index, _)| Cause::Rule {
                policy: PolicyRef::network_policy(&policy.namespace, &policy.name),
                tier: Tier::NetworkPolicy,
                direction: self.direction,
                index,
                name: None,
                action: Action::Accept,
            })
            .collect()
    }

    fn peer_matches(&self, policy: &ObjectName, peer: &NetworkPolicyPeer) -> bool {
        let (pod, address) = self.other();
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            // "If ipBlock is set then neither of the other fields can be."
            (Some(block), None, None) => ip_block_contains(block, address),
            (Some(_), _, _) | (None, None, None) => false,
            (None, namespaces, pods) => pod.is_some_and(|(id, pod)| {
                let in_namespace = match namespaces {
                    Some(selector) => {
                        surely(
                            &self.namespace_requirements(id, selector),
                            selector_is_clear(selector),
                        ) == Reading::Yes
                    }
                    // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
                    None => id.namespace == policy.namespace,
                };
                let selector = pods.clone().unwrap_or_default();
                let readings = read_selector(&selector, &|key| pod.labels.get(key).cloned());
                in_namespace && surely(&readings, selector_is_clear(&selector)) == Reading::Yes
            }),
        }
    }

    /// "If this field is empty or missing, this rule matches all ports."
    fn ports_match(&self, ports: &[NetworkPolicyPort], has_names: bool) -> bool {
        ports.is_empty() || ports.iter().any(|port| self.port_matches(port, has_names))
    }

    fn port_matches(&self, port: &NetworkPolicyPort, has_names: bool) -> bool {
        // "If not specified, this field defaults to TCP."
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return false,
        };
        match (&port.port, port.end_port) {
            // "If this field is not provided, this matches all port names and numbers."
            (None, None) => self.flow.protocol == protocol.number(),
            (Some(IntOrString::Int(first)), last) => {
                self.port_in(protocol.number(), *first, last.unwrap_or(*first)) == Reading::Yes
            }
            (Some(IntOrString::String(name)), None) => {
                has_names && is_port_name(name) && self.destination_names_port(name, Some(protocol))
            }
            // "This field cannot be defined if the port field is not defined or if the port field is defined as a
            // named (string) port."
            (Some(IntOrString::String(_)) | None, Some(_)) => false,
        }
    }
}

/// "If no policyTypes are specified, Ingress will always be set and Egress will be set if the NetworkPolicy has any
/// egress rules." A type that does not exist may have been meant as either.
fn has_policy_type(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.clone().unwrap_or_default();
    let has = |name: &str| types.iter().any(|it| it == name);
    let unclear = types.iter().any(|it| it != "Ingress" && it != "Egress");
    let has_egress_rules = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    match direction {
        Direction::Ingress => types.is_empty() || unclear || has("Ingress"),
        Direction::Egress => unclear || has("Egress") || (types.is_empty() && has_egress_rules),
    }
}

/// "The except entry describes CIDRs that should not be included within this rule."
fn ip_block_contains(block: &IPBlock, address: IpAddr) -> bool {
    let except = block.except.clone().unwrap_or_default();
    let except: Option<Vec<IpNet>> = except.iter().map(|text| parse_cidr(text)).collect();
    match (parse_cidr(&block.cidr), except) {
        (Some(cidr), Some(except)) => {
            cidr.contains(&address) && !except.iter().any(|exception| exception.contains(&address))
        }
        (None, _) | (_, None) => false,
    }
}
