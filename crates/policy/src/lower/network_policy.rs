//! `NetworkPolicy` of `networking.k8s.io/v1`.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::label_selector;
use super::{NotUnderstood, Report, cidr, close, dry_run, port};
use crate::model::{
    Namespaces, Network, Peer, Peers, PodSelector, Policy, PolicyRef, PortMatch, Ports, Protocol, Rule,
    Rules, Tier,
};
use crate::problem::{Code, Problem};
use crate::resolved::{Action, Direction};
use crate::snapshot::Labels;

/// Lowers a NetworkPolicy. What of it is not understood allows nothing.
#[must_use]
pub fn network_policy(
    reference: PolicyRef,
    annotations: &Labels,
    spec: &NetworkPolicySpec,
) -> (Policy, Vec<Problem>) {
    let mut report = Report::new((&reference).into());
    let namespace = reference.namespace.clone().unwrap_or_default();
    let dry_run = dry_run(annotations, &mut report);
    let types = policy_types(spec, &mut report);
    let subject = label_selector(spec.pod_selector.as_ref(), "spec.podSelector", &mut report);
    let mut reader = Reader {
        namespace: &namespace,
        report: &mut report,
    };
    let mut ingress = reader.ingress(spec, types.contains(&Direction::Ingress));
    let mut egress = reader.egress(spec, types.contains(&Direction::Egress));
    if !subject.complete {
        close(&mut ingress);
        close(&mut egress);
    }
    let policy = Policy {
        subject: PodSelector {
            namespaces: Namespaces::Named(namespace),
            pods: subject.selector,
        },
        reference,
        tier: Tier::NetworkPolicy,
        priority: 0,
        dry_run,
        ingress,
        egress,
    };
    (policy, report.problems)
}

/// The directions that the policy isolates. Absent: Ingress, and Egress if there are egress rules. A type that is not
/// understood could be either, so both are isolated.
fn policy_types(spec: &NetworkPolicySpec, report: &mut Report) -> BTreeSet<Direction> {
    let written = spec.policy_types.as_deref().unwrap_or_default();
    let mut types = BTreeSet::new();
    for (index, name) in written.iter().enumerate() {
        match name.as_str() {
            "Ingress" => types.extend([Direction::Ingress]),
            "Egress" => types.extend([Direction::Egress]),
            _ => {
                let message = format!("{name:?} is neither Ingress nor Egress; both are isolated");
                report.add(
                    Code::InvalidPolicyType,
                    format!("spec.policyTypes[{index}]"),
                    message,
                );
                types.extend([Direction::Ingress, Direction::Egress]);
            }
        }
    }
    if written.is_empty() {
        types.insert(Direction::Ingress);
        if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
            types.insert(Direction::Egress);
        }
    }
    types
}

/// A rule as written, of either direction.
struct Written<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
    /// `from` or `to`.
    peers_field: &'static str,
    direction: Direction,
}

struct Reader<'a> {
    namespace: &'a str,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn ingress(&mut self, spec: &NetworkPolicySpec, isolates: bool) -> Rules {
        let rules = spec.ingress.iter().flatten().map(|rule| Written {
            peers: rule.from.as_deref().unwrap_or_default(),
            ports: rule.ports.as_deref().unwrap_or_default(),
            peers_field: "from",
            direction: Direction::Ingress,
        });
        self.rules(rules, "spec.ingress", isolates)
    }

    fn egress(&mut self, spec: &NetworkPolicySpec, isolates: bool) -> Rules {
        let rules = spec.egress.iter().flatten().map(|rule| Written {
            peers: rule.to.as_deref().unwrap_or_default(),
            ports: rule.ports.as_deref().unwrap_or_default(),
            peers_field: "to",
            direction: Direction::Egress,
        });
        self.rules(rules, "spec.egress", isolates)
    }

    fn rules<'b>(&mut self, written: impl Iterator<Item = Written<'b>>, path: &str, isolates: bool) -> Rules {
        let read = written
            .enumerate()
            .map(|(index, rule)| self.rule(index, &rule, &format!("{path}[{index}]")));
        let read: Vec<Option<Rule>> = read.collect();
        if !isolates && !read.is_empty() {
            self.report.add(
                Code::IgnoredRules,
                path,
                "policyTypes leaves this direction out; the rules have no effect",
            );
        }
        let rules = if isolates {
            read.into_iter().flatten().collect()
        } else {
            Vec::new()
        };
        Rules { isolates, rules }
    }

    /// `None` where nothing can match.
    fn rule(&mut self, index: usize, written: &Written<'_>, path: &str) -> Option<Rule> {
        let peers = self.peers(written.peers, &format!("{path}.{}", written.peers_field));
        let ports = self.ports(written.ports, &format!("{path}.ports"));
        if written.direction == Direction::Egress {
            self.report_unmatchable(&peers, &ports, &format!("{path}.ports"));
        }
        let matches_nothing = peers == Peers::Of(Vec::new()) || ports == Ports::Of(Vec::new());
        (!matches_nothing).then_some(Rule {
            index,
            name: None,
            action: Action::Accept,
            peers,
            ports,
        })
    }

    /// An absent or empty list means everybody; a list of which nothing was understood means nobody.
    fn peers(&mut self, written: &[NetworkPolicyPeer], path: &str) -> Peers {
        if written.is_empty() {
            return Peers::Any;
        }
        let peers = written
            .iter()
            .enumerate()
            .map(|(index, peer)| self.peer(peer, &format!("{path}[{index}]")));
        Peers::Of(peers.filter_map(Result::ok).collect())
    }

    fn peer(&mut self, written: &NetworkPolicyPeer, path: &str) -> Result<Peer, NotUnderstood> {
        match (
            &written.ip_block,
            &written.namespace_selector,
            &written.pod_selector,
        ) {
            (Some(block), None, None) => self
                .ip_block(block, &format!("{path}.ipBlock"))
                .map(Peer::Network),
            (Some(_), _, _) => {
                let message =
                    "ipBlock cannot stand beside podSelector or namespaceSelector; the peer matches nothing";
                self.report.add(Code::InvalidPeer, path, message);
                Err(NotUnderstood)
            }
            (None, None, None) => {
                let message =
                    "the peer has none of podSelector, namespaceSelector and ipBlock; it matches nothing";
                self.report.add(Code::InvalidPeer, path, message);
                Err(NotUnderstood)
            }
            (None, namespaces, pods) => {
                let namespaces = namespaces.as_ref().map(|selector| {
                    label_selector(Some(selector), &format!("{path}.namespaceSelector"), self.report)
                });
                let pods = label_selector(pods.as_ref(), &format!("{path}.podSelector"), self.report);
                Ok(Peer::Pods(PodSelector {
                    namespaces: match namespaces {
                        Some(reading) => Namespaces::Labelled(reading.strict()?),
                        None => Namespaces::Named(self.namespace.to_owned()),
                    },
                    pods: pods.strict()?,
                }))
            }
        }
    }

    /// An exception that cannot be read makes the whole block allow nothing.
    fn ip_block(&mut self, block: &IPBlock, path: &str) -> Result<Network, NotUnderstood> {
        let cidr = cidr::cidr(&block.cidr, &format!("{path}.cidr"), self.report);
        let written = block.except.as_deref().unwrap_or_default();
        let except: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(index, text)| cidr::cidr(text, &format!("{path}.except[{index}]"), self.report))
            .collect();
        let (cidr, except) = (cidr?, except.into_iter().collect::<Result<Vec<_>, _>>()?);
        let mut seen = BTreeSet::new();
        for (index, exception) in except.iter().enumerate() {
            let path = || format!("{path}.except[{index}]");
            if *exception == cidr || !cidr.contains(exception) {
                let message = format!("{exception} is not a part of {cidr}; it takes out what the two share");
                self.report.add(Code::ExceptOutsideCidr, path(), message);
            }
            if !seen.insert(exception) {
                self.report
                    .add(Code::Duplicate, path(), format!("{exception} is already listed"));
            }
        }
        Ok(Network { cidr, except })
    }

    /// An absent or empty list means every protocol; a list of which nothing was understood means no traffic.
    fn ports(&mut self, written: &[NetworkPolicyPort], path: &str) -> Ports {
        if written.is_empty() {
            return Ports::Any;
        }
        let ports = written
            .iter()
            .enumerate()
            .map(|(index, port)| self.port(port, &format!("{path}[{index}]")));
        Ports::Of(ports.filter_map(Result::ok).collect())
    }

    fn port(&mut self, written: &NetworkPolicyPort, path: &str) -> Result<PortMatch, NotUnderstood> {
        let name = written.protocol.as_deref().unwrap_or("TCP");
        let protocol = Protocol::parse(name).ok_or_else(|| {
            let message = format!("{name:?} is not one of TCP, UDP, SCTP; the port matches nothing");
            self.report
                .add(Code::InvalidProtocol, format!("{path}.protocol"), message);
            NotUnderstood
        });
        let (port_path, end_path) = (format!("{path}.port"), format!("{path}.endPort"));
        match (&written.port, written.end_port) {
            (None, None) => Ok(PortMatch::Range {
                protocol: protocol?,
                first: 0,
                last: u16::MAX,
            }),
            (Some(IntOrString::Int(number)), None) => {
                let port = port::number(*number, &port_path, self.report)?;
                Ok(PortMatch::Range {
                    protocol: protocol?,
                    first: port,
                    last: port,
                })
            }
            (Some(IntOrString::Int(number)), Some(end)) => {
                let first = port::number(*number, &port_path, self.report);
                let last = port::number(end, &end_path, self.report);
                let (first, last) = port::range(first?, last?, &end_path, self.report)?;
                Ok(PortMatch::Range {
                    protocol: protocol?,
                    first,
                    last,
                })
            }
            (Some(IntOrString::String(name)), None) => {
                let name = port::name(name, &port_path, self.report)?;
                Ok(PortMatch::Named {
                    protocol: Some(protocol?),
                    name,
                })
            }
            (Some(IntOrString::String(_)), Some(_)) => {
                self.report.add(
                    Code::InvalidPortRange,
                    end_path,
                    "endPort cannot follow a port that is a name",
                );
                Err(NotUnderstood)
            }
            (None, Some(_)) => {
                self.report.add(
                    Code::InvalidPortRange,
                    end_path,
                    "endPort needs a port to begin at",
                );
                Err(NotUnderstood)
            }
        }
    }

    /// Names of ports belong to pods; an address that was matched by a CIDR has none.
    fn report_unmatchable(&mut self, peers: &Peers, ports: &Ports, path: &str) {
        let Peers::Of(peers) = peers else { return };
        let Ports::Of(ports) = ports else { return };
        if !peers.iter().any(|peer| matches!(peer, Peer::Network(_))) {
            return;
        }
        for port in ports {
            if let PortMatch::Named { name, .. } = port {
                let message = format!("an ipBlock has no port named {name:?}; together they match nothing");
                self.report.add(Code::NamedPortOnNetwork, path, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::Selector;

    #[test]
    fn an_absent_peer_selector_stays_in_the_namespace() {
        let mut report = Report::new((&PolicyRef::network_policy("shop", "p")).into());
        let mut reader = Reader {
            namespace: "shop",
            report: &mut report,
        };
        let peer = NetworkPolicyPeer {
            pod_selector: Some(Default::default()),
            ..Default::default()
        };
        let expected = PodSelector {
            namespaces: Namespaces::Named("shop".to_owned()),
            pods: Selector::default(),
        };
        assert_eq!(reader.peer(&peer, "p"), Ok(Peer::Pods(expected)));
    }
}
