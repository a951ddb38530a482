//! One direction of a policy set.

use std::collections::{BTreeMap, BTreeSet};

use super::ports::{Claim, PortRange, Tables};
use super::{Context, Isolation, SideKey, rule_cause, unknown};
use crate::identity::NamedPorts;
use crate::model::{Network, Peer, Peers, Policy, PortMatch, Ports, Protocol, Rule, Tier};
use crate::order::ranks;
use crate::resolved::{Action, Cause, Decision, Direction, Entry, IdentityNumber, Side, Slot, UNKNOWN_POD};

/// The decisions of one side.
pub(super) fn side(key: &SideKey, context: &Context<'_>, tables: &mut Tables) -> Side {
    let builder = Builder::new(key, context);
    let any = tables.entry(&builder.any);
    let side = Side {
        identities: builder.identities(&any, tables),
        cidrs: builder.cidrs(&any, tables),
        any: Some(any),
    };
    let unrestricted = Entry {
        decision: Decision::default(),
        ports: None,
    };
    if side.any == Some(unrestricted) && side.identities.is_empty() && side.cidrs.is_empty() {
        return Side::default();
    }
    side
}

/// A rule with its place among the side's rules.
pub(super) struct Line<'a> {
    pub(super) tier: Tier,
    pub(super) slot: Slot,
    pub(super) dry_run: bool,
    pub(super) peers: &'a Peers,
    /// What it matches whoever the peer is.
    pub(super) ports: Numbers,
    /// Ports that only the peer's identity can number.
    pub(super) named: Vec<(Option<Protocol>, &'a str)>,
}

/// Ports as numbers.
pub(super) enum Numbers {
    Any,
    Of(Vec<PortRange>),
}

struct Builder<'a> {
    context: &'a Context<'a>,
    lines: Vec<Line<'a>>,
    /// The claims that hold whoever the peer is.
    any: Vec<Claim>,
    /// Lines for any peer whose ports depend on the peer's identity.
    any_named: Vec<usize>,
    /// The names that decide something in an identity.
    names: BTreeSet<&'a str>,
}

impl<'a> Builder<'a> {
    fn new(key: &SideKey, context: &'a Context<'a>) -> Self {
        let lines = lines(key, context);
        let of_any = |line: &Line<'_>| *line.peers == Peers::Any;
        let mut any = implicit_denials(key, context);
        for line in lines.iter().filter(|line| of_any(line)) {
            line.claim(&mut any);
        }
        let any_named =
            (0..lines.len()).filter(|&index| of_any(&lines[index]) && !lines[index].named.is_empty());
        let any_named = any_named.collect();
        let names = lines
            .iter()
            .flat_map(|line| line.named.iter().map(|(_, name)| *name))
            .collect();
        Self {
            context,
            lines,
            any,
            any_named,
            names,
        }
    }

    /// Identities to which the same lines apply, with the same ports behind the names, are settled together.
    fn identities(&self, any: &Entry, tables: &mut Tables) -> BTreeMap<IdentityNumber, Entry> {
        let mut settled = BTreeMap::<(Vec<usize>, Vec<_>), Entry>::new();
        let mut entries = BTreeMap::new();
        for (lines, (key, number)) in self
            .lines_of_identities()
            .into_iter()
            .zip(self.context.peers.identities())
        {
            if lines.is_empty() {
                continue;
            }
            let names = key
                .named_ports
                .iter()
                .filter(|(name, _)| self.names.contains(name.as_str()));
            let group = (lines, names.collect());
            let entry = match settled.get(&group) {
                Some(entry) => entry.clone(),
                None => {
                    let entry = tables.entry(&self.claims(&group.0, &key.named_ports));
                    settled.insert(group, entry.clone());
                    entry
                }
            };
            if entry != *any {
                entries.insert(*number, entry);
            }
        }
        let mut claims = unknown::claims(&self.lines);
        claims.extend_from_slice(&self.any);
        let unknown = tables.entry(&claims);
        if unknown != *any {
            entries.insert(UNKNOWN_POD, unknown);
        }
        entries
    }

    /// For each identity, the lines that say something of it beside what holds for any peer.
    fn lines_of_identities(&self) -> Vec<Vec<usize>> {
        let mut lines_of = vec![self.any_named.clone(); self.context.peers.identities().len()];
        for (index, line) in self.lines.iter().enumerate() {
            let Peers::Of(peers) = line.peers else { continue };
            for &identity in peers.iter().flat_map(|peer| self.members(peer)) {
                if lines_of[identity].last() != Some(&index) {
                    lines_of[identity].push(index);
                }
            }
        }
        lines_of
    }

    fn members(&self, peer: &Peer) -> &[usize] {
        match peer {
            Peer::Pods(selector) => self.context.peers.of(selector),
            Peer::Network(_) => &[],
        }
    }

    fn cidrs(&self, any: &Entry, tables: &mut Tables) -> BTreeMap<usize, Entry> {
        let networks = self.lines.iter().enumerate().flat_map(|(index, line)| {
            let peers = match line.peers {
                Peers::Any => [].as_slice(),
                Peers::Of(peers) => peers,
            };
            peers.iter().filter_map(move |peer| match peer {
                Peer::Network(network) => Some((index, network)),
                Peer::Pods(_) => None,
            })
        });
        let networks: Vec<(usize, &Network)> = networks.collect();
        let mut settled = BTreeMap::<Vec<usize>, Entry>::new();
        self.context
            .cidrs
            .entries(&networks, any, |lines| match settled.get(lines) {
                Some(entry) => entry.clone(),
                None => {
                    let entry = tables.entry(&self.claims(lines, &NamedPorts::new()));
                    settled.insert(lines.to_vec(), entry.clone());
                    entry
                }
            })
    }

    /// What these lines claim for a peer with these named ports, beside what holds for any peer.
    fn claims(&self, lines: &[usize], named_ports: &NamedPorts) -> Vec<Claim> {
        let mut claims = self.any.clone();
        for line in lines.iter().map(|&index| &self.lines[index]) {
            if *line.peers != Peers::Any {
                line.claim(&mut claims);
            }
            line.claim_named(named_ports, &mut claims);
        }
        claims
    }
}

impl Line<'_> {
    pub(super) fn claim(&self, claims: &mut Vec<Claim>) {
        match &self.ports {
            Numbers::Any => claims.push(self.claim_of(None)),
            Numbers::Of(ranges) => claims.extend(ranges.iter().map(|range| self.claim_of(Some(*range)))),
        }
    }

    fn claim_named(&self, named_ports: &NamedPorts, claims: &mut Vec<Claim>) {
        for (protocol, name) in &self.named {
            let ranges = numbers_of(*protocol, name, named_ports);
            claims.extend(ranges.map(|range| self.claim_of(Some(range))));
        }
    }

    pub(super) fn claim_of(&self, ports: Option<PortRange>) -> Claim {
        Claim {
            tier: self.tier,
            slot: self.slot,
            enforced: !self.dry_run,
            dry_run: true,
            ports,
        }
    }
}

fn lines<'a>(key: &SideKey, context: &Context<'a>) -> Vec<Line<'a>> {
    let policies: Vec<&Policy> = key
        .policies
        .iter()
        .map(|&index| context.policies[index])
        .collect();
    let ranks = ranks(&policies, key.direction);
    let mut lines = Vec::with_capacity(ranks.len());
    for ((policy, rule), rank) in ranks {
        let policy = policies[policy];
        let rule = &policy.rules(key.direction).rules[rule];
        let (ports, named) = rule_ports(rule, key);
        lines.push(Line {
            tier: policy.tier,
            slot: Slot {
                rank,
                action: rule.action,
                cause: context.cause(&rule_cause(policy, rule, key.direction)),
            },
            dry_run: policy.dry_run,
            peers: &rule.peers,
            ports,
            named,
        });
    }
    lines
}

/// Names are numbered by the subject for ingress and left to the peer for egress.
fn rule_ports<'a>(rule: &'a Rule, key: &SideKey) -> (Numbers, Vec<(Option<Protocol>, &'a str)>) {
    let Ports::Of(ports) = &rule.ports else {
        return (Numbers::Any, Vec::new());
    };
    let (mut ranges, mut named) = (Vec::new(), Vec::new());
    for port in ports {
        match (port, key.direction) {
            (
                &PortMatch::Range {
                    protocol,
                    first,
                    last,
                },
                _,
            ) => ranges.push(PortRange {
                protocol,
                first,
                last,
            }),
            (PortMatch::Named { protocol, name }, Direction::Ingress) => {
                ranges.extend(numbers_of(*protocol, name, &key.named_ports));
            }
            (PortMatch::Named { protocol, name }, Direction::Egress) => {
                named.push((*protocol, name.as_str()))
            }
        }
    }
    (Numbers::Of(ranges), named)
}

fn numbers_of(
    protocol: Option<Protocol>,
    name: &str,
    named_ports: &NamedPorts,
) -> impl Iterator<Item = PortRange> {
    let ports = named_ports.get(name).into_iter().flatten();
    let ports = ports.filter(move |(of, _)| protocol.is_none_or(|protocol| protocol == *of));
    ports.map(|&(protocol, port)| PortRange {
        protocol,
        first: port,
        last: port,
    })
}

/// Isolation as the last rule of its tier.
fn implicit_denials(key: &SideKey, context: &Context<'_>) -> Vec<Claim> {
    let isolation = Isolation::of(&context.policies, key);
    let claim = |cause: &Cause, enforced| Claim {
        tier: Tier::NetworkPolicy,
        slot: Slot {
            rank: Slot::IMPLICIT_DENY_RANK,
            action: Action::Deny,
            cause: context.cause(cause),
        },
        enforced,
        dry_run: !enforced,
        ports: None,
    };
    let enforced = isolation.enforced.iter().map(|cause| claim(cause, true));
    enforced
        .chain(isolation.dry_run.iter().map(|cause| claim(cause, false)))
        .collect()
}
