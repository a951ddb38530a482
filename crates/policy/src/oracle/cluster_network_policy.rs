//! "ClusterNetworkPolicy is a cluster-wide network policy resource."

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weir_api::cluster_network_policy as cnp;

use super::selector::{Reading, may_be, read_selector, selector_is_clear, surely};
use super::{Question, Ruling, is_dry_run, is_port_name, parse_cidr};
use crate::model::{PolicyRef, Tier};
use crate::resolved::{Action, Cause, Direction, Verdict};
use crate::snapshot::{ClusterNetworkPolicy, Pod, PodId};

impl Question<'_> {
    /// `None` where the tier makes no final decision.
    pub(super) fn cluster_tier(&self, tier: cnp::Tier, with_dry_run: bool) -> Option<Ruling> {
        let policies = self.snapshot.cluster_network_policies.iter();
        let mut policies: Vec<(&String, &ClusterNetworkPolicy)> = policies
            .filter(|(_, policy)| policy.spec.tier == tier)
            .filter(|(_, policy)| with_dry_run || !is_dry_run(&policy.annotations))
            .collect();
        // "Policies with lower priority values have higher precedence." Equal ones: by name, Weir's own choice.
        policies.sort_by_key(|(name, policy)| (policy.spec.priority.clamp(0, 1000), *name));
        for (name, policy) in policies {
            let subject = self.is_subject_of(&policy.spec.subject);
            if subject == Reading::No {
                continue;
            }
            // "A rule that appears at the top would take the highest precedence."
            for (index, rule) in rules_of(policy, self.direction).into_iter().enumerate() {
                let Some(action) = self.rule_applies(&rule, subject) else {
                    continue;
                };
                let cause = Cause::Rule {
                    policy: PolicyRef::cluster_network_policy(name),
                    tier: match tier {
                        cnp::Tier::Admin => Tier::Admin,
                        cnp::Tier::Baseline => Tier::Baseline,
                    },
                    direction: self.direction,
                    index,
                    name: rule.name.cloned(),
                    action,
                };
                let verdict = match action {
                    Action::Accept => Verdict::Allow,
                    Action::Deny => Verdict::Deny,
                    // "Skips all further rules in the current tier, and passes evaluation to the next tier."
                    Action::Pass => return None,
                };
                return Some(Ruling {
                    verdict,
                    causes: BTreeSet::from([cause]),
                });
            }
        }
        None
    }

    /// "Exactly one field must be set." Where it cannot be told whether the pod is meant, it may be.
    fn is_subject_of(&self, subject: &cnp::Subject) -> Reading {
        let requirements = match (&subject.namespaces, &subject.pods) {
            (Some(namespaces), None) => self.namespace_requirements(self.id, namespaces),
            (None, Some(pods)) => self.pod_requirements(self.id, self.pod, pods),
            (None, None) | (Some(_), Some(_)) => vec![Reading::Unclear],
        };
        may_be(&requirements)
    }

    /// The action that a rule takes on the flow, if it applies.
    fn rule_applies(&self, rule: &ClusterRule<'_>, subject: Reading) -> Option<Action> {
        let written = match rule.action {
            cnp::RuleAction::Accept => Action::Accept,
            cnp::RuleAction::Deny => Action::Deny,
            cnp::RuleAction::Pass => Action::Pass,
        };
        let peers: Vec<(Reading, bool)> = rule.peers.iter().map(|peer| self.cluster_peer(peer)).collect();
        let protocols: Option<Vec<Reading>> = rule.protocols.map(|protocols| {
            protocols
                .iter()
                .map(|protocol| self.cluster_protocol(protocol))
                .collect()
        });
        let unclear = peers.is_empty()
            || peers.iter().any(|(reading, _)| *reading == Reading::Unclear)
            || protocols
                .as_ref()
                .is_some_and(|all| all.is_empty() || all.contains(&Reading::Unclear));
        if unclear {
            // "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules,
            // fail closed means: treat the rule as a 'Deny all' rule."
            return (written != Action::Accept).then_some(Action::Deny);
        }
        // "You can't use this in a rule that targets resources without named ports."
        let named = |has_names: bool| {
            let mut protocols = rule.protocols.into_iter().flatten();
            has_names && protocols.any(|protocol| self.is_named_port_match(protocol))
        };
        let matches = peers
            .iter()
            .filter(|(reading, _)| *reading == Reading::Yes)
            .any(|(_, has_names)| match &protocols {
                None => true,
                Some(readings) => readings.contains(&Reading::Yes) || named(*has_names),
            });
        match (matches, subject, written) {
            (false, _, _) => None,
            (true, Reading::Yes, action) => Some(action),
            // To accept or to skip rules needs a subject that is surely meant; to deny does not.
            (true, _, Action::Accept) => None,
            (true, _, Action::Deny | Action::Pass) => Some(Action::Deny),
        }
    }

    /// Whether the other end is meant, and whether it is meant as something that has named ports.
    fn cluster_peer(&self, peer: &cnp::EgressPeer) -> (Reading, bool) {
        let other = self.other().0;
        match peer {
            cnp::EgressPeer {
                namespaces: Some(namespaces),
                pods: None,
                nodes: None,
                networks: None,
                domain_names: None,
            } => {
                let readings = match other {
                    Some((id, _)) => self.namespace_requirements(id, namespaces),
                    None => vec![Reading::No],
                };
                (surely(&readings, selector_is_clear(namespaces)), true)
            }
            cnp::EgressPeer {
                namespaces: None,
                pods: Some(pods),
                nodes: None,
                networks: None,
                domain_names: None,
            } => {
                let clear = selector_is_clear(&pods.pod_selector)
                    && pods.namespace_selector.as_ref().is_none_or(selector_is_clear);
                let readings = match other {
                    Some((id, pod)) => self.pod_requirements(id, pod, pods),
                    None => vec![Reading::No],
                };
                (surely(&readings, clear), true)
            }
            cnp::EgressPeer {
                namespaces: None,
                pods: None,
                nodes: None,
                networks: Some(networks),
                domain_names: None,
            } => (self.networks(networks), false),
            // None, several, or one that is only in the experimental channel.
            cnp::EgressPeer { .. } => (Reading::Unclear, false),
        }
    }

    /// "Cluster-internal traffic will be checked against the rule as well."
    fn networks(&self, networks: &[cnp::Cidr]) -> Reading {
        let address = self.other().1;
        let cidrs: Option<Vec<IpNet>> = networks.iter().map(|network| parse_cidr(&network.0)).collect();
        match cidrs {
            None => Reading::Unclear,
            Some(cidrs) if cidrs.is_empty() => Reading::Unclear,
            Some(cidrs) if cidrs.iter().any(|cidr| cidr.contains(&address)) => Reading::Yes,
            Some(_) => Reading::No,
        }
    }

    pub(super) fn namespace_requirements(&self, id: &PodId, selector: &LabelSelector) -> Vec<Reading> {
        read_selector(selector, &|key| {
            self.snapshot
                .namespace_label(&id.namespace, key)
                .map(str::to_owned)
        })
    }

    /// "NamespaceSelector: if empty, it selects all Namespaces."
    fn pod_requirements(&self, id: &PodId, pod: &Pod, selector: &cnp::NamespacedPod) -> Vec<Reading> {
        let namespaces = selector.namespace_selector.as_ref();
        let mut readings = namespaces
            .map(|it| self.namespace_requirements(id, it))
            .unwrap_or_default();
        readings.extend(read_selector(&selector.pod_selector, &|key| {
            pod.labels.get(key).cloned()
        }));
        readings
    }

    /// By number. Names are looked at by [`Self::is_named_port_match`].
    fn cluster_protocol(&self, protocol: &cnp::Protocol) -> Reading {
        let by_number = |number, transport: &cnp::TransportMatch| match &transport.destination_port {
            Some(cnp::Port {
                number: Some(port),
                range: None,
            }) => self.port_in(number, *port, *port),
            Some(cnp::Port {
                number: None,
                range: Some(range),
            }) => self.port_in(number, range.start, range.end),
            Some(cnp::Port { .. }) | None => Reading::Unclear,
        };
        match protocol {
            cnp::Protocol {
                tcp: Some(tcp),
                udp: None,
                sctp: None,
                destination_named_port: None,
            } => by_number(6, tcp),
            cnp::Protocol {
                tcp: None,
                udp: Some(udp),
                sctp: None,
                destination_named_port: None,
            } => by_number(17, udp),
            cnp::Protocol {
                tcp: None,
                udp: None,
                sctp: Some(sctp),
                destination_named_port: None,
            } => by_number(132, sctp),
            cnp::Protocol {
                tcp: None,
                udp: None,
                sctp: None,
                destination_named_port: Some(name),
            } => {
                if is_port_name(name) {
                    Reading::No
                } else {
                    Reading::Unclear
                }
            }
            cnp::Protocol { .. } => Reading::Unclear,
        }
    }

    fn is_named_port_match(&self, protocol: &cnp::Protocol) -> bool {
        protocol
            .destination_named_port
            .as_ref()
            .is_some_and(|name| self.destination_names_port(name, None))
    }
}

/// A rule of either direction; an ingress peer is an egress peer with fewer members.
struct ClusterRule<'a> {
    name: Option<&'a String>,
    action: cnp::RuleAction,
    peers: Vec<cnp::EgressPeer>,
    protocols: Option<&'a Vec<cnp::Protocol>>,
}

fn rules_of(policy: &ClusterNetworkPolicy, direction: Direction) -> Vec<ClusterRule<'_>> {
    let ingress_peer = |peer: &cnp::IngressPeer| cnp::EgressPeer {
        namespaces: peer.namespaces.clone(),
        pods: peer.pods.clone(),
        ..cnp::EgressPeer::default()
    };
    match direction {
        Direction::Ingress => policy
            .spec
            .ingress
            .iter()
            .map(|rule| ClusterRule {
                name: rule.name.as_ref(),
                action: rule.action,
                peers: rule.from.iter().map(ingress_peer).collect(),
                protocols: rule.protocols.as_ref(),
            })
            .collect(),
        Direction::Egress => policy
            .spec
            .egress
            .iter()
            .map(|rule| ClusterRule {
                name: rule.name.as_ref(),
                action: rule.action,
                peers: rule.to.clone(),
                protocols: rule.protocols.as_ref(),
            })
            .collect(),
    }
}
