//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`.

use std::collections::BTreeSet;

use weir_api::cluster_network_policy as api;
use weir_api::cluster_network_policy::ClusterNetworkPolicySpec;

use super::selector::label_selector;
use super::{NotUnderstood, Report, cidr, close, dry_run, port};
use crate::model::{
    Namespaces, Network, Peer, Peers, PodSelector, Policy, PolicyRef, PortMatch, Ports, Protocol, Rule,
    Rules, Tier,
};
use crate::problem::{Code, Problem};
use crate::resolved::Action;
use crate::selector::Selector;
use crate::snapshot::Labels;

/// The most items that the API admits in a list.
const MAX_ITEMS: usize = 25;

/// The highest priority value that the API admits.
const MAX_PRIORITY: u16 = 1000;

/// Lowers a ClusterNetworkPolicy. A rule with a part that is not understood fails closed.
#[must_use]
pub fn cluster_network_policy(
    reference: PolicyRef,
    annotations: &Labels,
    spec: &ClusterNetworkPolicySpec,
) -> (Policy, Vec<Problem>) {
    let mut report = Report::new((&reference).into());
    let dry_run = dry_run(annotations, &mut report);
    let priority = priority(spec.priority, &mut report);
    let subject = subject(&spec.subject, &mut report);
    let mut reader = Reader { report: &mut report };
    let mut ingress = reader.rules(spec.ingress.iter().map(Written::ingress), "spec.ingress");
    let mut egress = reader.rules(spec.egress.iter().map(Written::egress), "spec.egress");
    if !subject.complete {
        close(&mut ingress);
        close(&mut egress);
    }
    let tier = match spec.tier {
        api::Tier::Admin => Tier::Admin,
        api::Tier::Baseline => Tier::Baseline,
    };
    let subject = subject.selector;
    (
        Policy {
            reference,
            tier,
            priority,
            dry_run,
            subject,
            ingress,
            egress,
        },
        report.problems,
    )
}

fn priority(written: i32, report: &mut Report) -> u16 {
    let priority = u16::try_from(written.max(0)).map_or(MAX_PRIORITY, |value| value.min(MAX_PRIORITY));
    if i32::from(priority) != written {
        let message = format!("{written} is not a priority of 0 to {MAX_PRIORITY}; it is read as {priority}");
        report.add(Code::PriorityOutOfRange, "spec.priority", message);
    }
    priority
}

struct Subject {
    selector: PodSelector,
    complete: bool,
}

/// The subject; as far as it is not understood, every pod.
fn subject(written: &api::Subject, report: &mut Report) -> Subject {
    match (&written.namespaces, &written.pods) {
        (Some(namespaces), None) => {
            let reading = label_selector(Some(namespaces), "spec.subject.namespaces", report);
            let namespaces = Namespaces::Labelled(reading.selector);
            let selector = PodSelector {
                namespaces,
                pods: Selector::default(),
            };
            Subject {
                selector,
                complete: reading.complete,
            }
        }
        (None, Some(written)) => {
            let path = "spec.subject.pods";
            let namespaces = written.namespace_selector.as_ref();
            let namespaces = label_selector(namespaces, &format!("{path}.namespaceSelector"), report);
            let pods = label_selector(
                Some(&written.pod_selector),
                &format!("{path}.podSelector"),
                report,
            );
            let complete = namespaces.complete && pods.complete;
            let namespaces = Namespaces::Labelled(namespaces.selector);
            Subject {
                selector: PodSelector {
                    namespaces,
                    pods: pods.selector,
                },
                complete,
            }
        }
        (namespaces, _) => {
            let count = if namespaces.is_some() { "both" } else { "none" };
            let message = format!(
                "exactly one of namespaces and pods must be set, and {count} is; the Deny and Pass rules deny for \
                 every pod"
            );
            report.add(Code::InvalidSubject, "spec.subject", message);
            Subject {
                selector: PodSelector::everything(),
                complete: false,
            }
        }
    }
}

/// A rule as written, of either direction.
struct Written<'a> {
    name: Option<&'a String>,
    action: api::RuleAction,
    peers: Vec<WrittenPeer<'a>>,
    /// `from` or `to`.
    peers_field: &'static str,
    protocols: Option<&'a [api::Protocol]>,
}

impl<'a> Written<'a> {
    fn ingress(rule: &'a api::IngressRule) -> Self {
        Self {
            name: rule.name.as_ref(),
            action: rule.action,
            peers: rule.from.iter().map(WrittenPeer::ingress).collect(),
            peers_field: "from",
            protocols: rule.protocols.as_deref(),
        }
    }

    fn egress(rule: &'a api::EgressRule) -> Self {
        Self {
            name: rule.name.as_ref(),
            action: rule.action,
            peers: rule.to.iter().map(WrittenPeer::egress).collect(),
            peers_field: "to",
            protocols: rule.protocols.as_deref(),
        }
    }
}

enum WrittenPeer<'a> {
    Namespaces(&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector),
    Pods(&'a api::NamespacedPod),
    Networks(&'a [api::Cidr]),
    /// Of the experimental channel: the member's name.
    Unsupported(&'static str),
    NotExactlyOne,
}

impl<'a> WrittenPeer<'a> {
    fn ingress(peer: &'a api::IngressPeer) -> Self {
        match peer {
            api::IngressPeer {
                namespaces: Some(namespaces),
                pods: None,
            } => Self::Namespaces(namespaces),
            api::IngressPeer {
                namespaces: None,
                pods: Some(pods),
            } => Self::Pods(pods),
            api::IngressPeer { .. } => Self::NotExactlyOne,
        }
    }

    fn egress(peer: &'a api::EgressPeer) -> Self {
        let members = [
            peer.namespaces.as_ref().map(Self::Namespaces),
            peer.pods.as_ref().map(Self::Pods),
            peer.networks.as_deref().map(Self::Networks),
            peer.nodes.as_ref().map(|_| Self::Unsupported("nodes")),
            peer.domain_names
                .as_ref()
                .map(|_| Self::Unsupported("domainNames")),
        ];
        let mut members = members.into_iter().flatten();
        match (members.next(), members.next()) {
            (Some(member), None) => member,
            (None | Some(_), _) => Self::NotExactlyOne,
        }
    }
}

struct Reader<'a> {
    report: &'a mut Report,
}

impl Reader<'_> {
    fn rules<'b>(&mut self, written: impl ExactSizeIterator<Item = Written<'b>>, path: &str) -> Rules {
        self.check_count(written.len(), path);
        let rules = written
            .enumerate()
            .map(|(index, rule)| self.rule(index, &rule, &format!("{path}[{index}]")));
        Rules {
            isolates: false,
            rules: rules.collect::<Vec<_>>().into_iter().flatten().collect(),
        }
    }

    /// `None` where nothing can match.
    fn rule(&mut self, index: usize, written: &Written<'_>, path: &str) -> Option<Rule> {
        let action = match written.action {
            api::RuleAction::Accept => Action::Accept,
            api::RuleAction::Deny => Action::Deny,
            api::RuleAction::Pass => Action::Pass,
        };
        let name = written.name.cloned();
        let peers = self.peers(written, path);
        let ports = self.ports(written, path);
        match (peers, ports, action) {
            (Ok(peers), Ok(ports), action) => {
                self.report_unmatchable(&peers, &ports, path);
                Some(Rule {
                    index,
                    name,
                    action,
                    peers,
                    ports,
                })
            }
            (_, _, Action::Accept) => None,
            (_, _, Action::Deny | Action::Pass) => Some(Rule {
                index,
                name,
                action: Action::Deny,
                peers: Peers::Any,
                ports: Ports::Any,
            }),
        }
    }

    fn peers(&mut self, written: &Written<'_>, path: &str) -> Result<Peers, NotUnderstood> {
        let path = format!("{path}.{}", written.peers_field);
        self.check_count(written.peers.len(), &path);
        if written.peers.is_empty() {
            self.closed(
                Code::InvalidPeer,
                &path,
                "the list must have at least one peer",
                written.action,
            );
            return Err(NotUnderstood);
        }
        let peers = written
            .peers
            .iter()
            .enumerate()
            .map(|(index, peer)| self.peer(peer, &format!("{path}[{index}]"), written.action));
        // All of them, so that each problem is reported.
        let peers: Vec<_> = peers.collect();
        let peers: Result<Vec<Vec<Peer>>, _> = peers.into_iter().collect();
        Ok(Peers::Of(peers?.into_iter().flatten().collect()))
    }

    fn peer(
        &mut self,
        written: &WrittenPeer<'_>,
        path: &str,
        action: api::RuleAction,
    ) -> Result<Vec<Peer>, NotUnderstood> {
        match written {
            WrittenPeer::Namespaces(namespaces) => {
                let namespaces = label_selector(Some(namespaces), &format!("{path}.namespaces"), self.report);
                let namespaces = Namespaces::Labelled(namespaces.strict()?);
                Ok(vec![Peer::Pods(PodSelector {
                    namespaces,
                    pods: Selector::default(),
                })])
            }
            WrittenPeer::Pods(pods) => self.pods(pods, &format!("{path}.pods")).map(|peer| vec![peer]),
            WrittenPeer::Networks(networks) => self.networks(networks, &format!("{path}.networks"), action),
            WrittenPeer::Unsupported(member) => {
                let message = format!("{member} is in the experimental channel and is not enforced");
                self.closed(
                    Code::UnsupportedPeer,
                    &format!("{path}.{member}"),
                    &message,
                    action,
                );
                Err(NotUnderstood)
            }
            WrittenPeer::NotExactlyOne => {
                let message = "exactly one member that Weir knows must be set";
                self.closed(Code::InvalidPeer, path, message, action);
                Err(NotUnderstood)
            }
        }
    }

    fn pods(&mut self, written: &api::NamespacedPod, path: &str) -> Result<Peer, NotUnderstood> {
        let namespaces = written.namespace_selector.as_ref();
        let namespaces = label_selector(namespaces, &format!("{path}.namespaceSelector"), self.report);
        let pods = label_selector(
            Some(&written.pod_selector),
            &format!("{path}.podSelector"),
            self.report,
        );
        let namespaces = Namespaces::Labelled(namespaces.strict()?);
        Ok(Peer::Pods(PodSelector {
            namespaces,
            pods: pods.strict()?,
        }))
    }

    fn networks(
        &mut self,
        written: &[api::Cidr],
        path: &str,
        action: api::RuleAction,
    ) -> Result<Vec<Peer>, NotUnderstood> {
        self.check_count(written.len(), path);
        if written.is_empty() {
            self.closed(
                Code::InvalidPeer,
                path,
                "the list must have at least one CIDR",
                action,
            );
            return Err(NotUnderstood);
        }
        let mut seen = BTreeSet::new();
        let networks = written.iter().enumerate().map(|(index, text)| {
            let path = format!("{path}[{index}]");
            let cidr = cidr::cidr(&text.0, &path, self.report)?;
            if !seen.insert(cidr) {
                self.report
                    .add(Code::Duplicate, path, format!("{cidr} is already listed"));
            }
            Ok(Peer::Network(Network {
                cidr,
                except: Vec::new(),
            }))
        });
        networks.collect::<Vec<_>>().into_iter().collect()
    }

    fn ports(&mut self, written: &Written<'_>, path: &str) -> Result<Ports, NotUnderstood> {
        let Some(protocols) = written.protocols else {
            return Ok(Ports::Any);
        };
        let path = format!("{path}.protocols");
        self.check_count(protocols.len(), &path);
        if protocols.is_empty() {
            self.closed(
                Code::InvalidProtocol,
                &path,
                "the list must have at least one protocol",
                written.action,
            );
            return Err(NotUnderstood);
        }
        let ports = protocols
            .iter()
            .enumerate()
            .map(|(index, protocol)| self.protocol(protocol, &format!("{path}[{index}]"), written.action));
        let ports: Vec<_> = ports.collect();
        Ok(Ports::Of(ports.into_iter().collect::<Result<_, _>>()?))
    }

    fn protocol(
        &mut self,
        written: &api::Protocol,
        path: &str,
        action: api::RuleAction,
    ) -> Result<PortMatch, NotUnderstood> {
        let api::Protocol {
            tcp,
            udp,
            sctp,
            destination_named_port,
        } = written;
        match (tcp, udp, sctp, destination_named_port) {
            (Some(tcp), None, None, None) => {
                self.transport(Protocol::Tcp, tcp, &format!("{path}.tcp"), action)
            }
            (None, Some(udp), None, None) => {
                self.transport(Protocol::Udp, udp, &format!("{path}.udp"), action)
            }
            (None, None, Some(sctp), None) => {
                self.transport(Protocol::Sctp, sctp, &format!("{path}.sctp"), action)
            }
            (None, None, None, Some(name)) => {
                let name = port::name(name, &format!("{path}.destinationNamedPort"), self.report)?;
                Ok(PortMatch::Named { protocol: None, name })
            }
            _ => {
                let message = "exactly one of tcp, udp, sctp and destinationNamedPort must be set";
                self.closed(Code::InvalidProtocol, path, message, action);
                Err(NotUnderstood)
            }
        }
    }

    fn transport(
        &mut self,
        protocol: Protocol,
        written: &api::TransportMatch,
        path: &str,
        action: api::RuleAction,
    ) -> Result<PortMatch, NotUnderstood> {
        let path = format!("{path}.destinationPort");
        let (first, last) = match &written.destination_port {
            Some(api::Port {
                number: Some(number),
                range: None,
            }) => {
                let number = port::number(*number, &format!("{path}.number"), self.report)?;
                (number, number)
            }
            Some(api::Port {
                number: None,
                range: Some(range),
            }) => self.range(range, &format!("{path}.range"))?,
            Some(api::Port { .. }) => {
                self.closed(
                    Code::InvalidPort,
                    &path,
                    "exactly one of number and range must be set",
                    action,
                );
                return Err(NotUnderstood);
            }
            None => {
                let message = "a destinationPort must be set; every port is the range 1 to 65535";
                self.closed(Code::InvalidPort, &path, message, action);
                return Err(NotUnderstood);
            }
        };
        Ok(PortMatch::Range {
            protocol,
            first,
            last,
        })
    }

    fn range(&mut self, written: &api::PortRange, path: &str) -> Result<(u16, u16), NotUnderstood> {
        let start = port::number(written.start, &format!("{path}.start"), self.report);
        let end = port::number(written.end, &format!("{path}.end"), self.report);
        port::range(start?, end?, &format!("{path}.end"), self.report)
    }

    /// Names of ports belong to pods; an address that was matched by a CIDR has none.
    fn report_unmatchable(&mut self, peers: &Peers, ports: &Ports, path: &str) {
        let (Peers::Of(peers), Ports::Of(ports)) = (peers, ports) else {
            return;
        };
        if !peers.iter().any(|peer| matches!(peer, Peer::Network(_))) {
            return;
        }
        for (index, port) in ports.iter().enumerate() {
            if let PortMatch::Named { name, .. } = port {
                let path = format!("{path}.protocols[{index}].destinationNamedPort");
                let message = format!("networks have no port named {name:?}; together they match nothing");
                self.report.add(Code::NamedPortOnNetwork, path, message);
            }
        }
    }

    fn check_count(&mut self, count: usize, path: &str) {
        if count > MAX_ITEMS {
            let message = format!("{count} items, and the API admits {MAX_ITEMS}; all of them hold");
            self.report.add(Code::TooManyItems, path, message);
        }
    }

    /// Reports a part for which the rule fails closed.
    fn closed(&mut self, code: Code, path: &str, message: &str, action: api::RuleAction) {
        let outcome = match action {
            api::RuleAction::Accept => "matches nothing",
            api::RuleAction::Deny | api::RuleAction::Pass => "denies everything",
        };
        self.report
            .add(code, path, format!("{message}; the {action:?} rule {outcome}"));
    }
}
