//! What resolved policy says of one flow, as the kernel would find out.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::order::{Ruling, judge, meet};
use crate::resolved::{Decision, Direction, Entry, Flow, IdentityNumber, PortPrefix, Resolved, Side};
use crate::snapshot::PodId;

/// What a node knows of the two ends of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub source: End,
    pub destination: End,
    /// The ends are a pod and its own node, or the same pod: no policy is asked.
    pub exempt: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// The pod, if it is on this node and on the pod network.
    pub local: Option<PodId>,
    /// The identity that its address has.
    pub identity: Option<IdentityNumber>,
}

/// One judgement for each end that is a local pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub egress: Option<Judgement>,
    pub ingress: Option<Judgement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub enforced: Ruling,
    /// If the dry-run policies were in force too.
    pub dry_run: Ruling,
}

/// Judges a flow at those of its ends that are local pods.
#[must_use]
pub fn evaluate(resolved: &Resolved, flow: &Flow, facts: &Facts) -> Answer {
    let judgement = |end: &End, direction, peer: &End, address| {
        let pod = end.local.as_ref()?;
        let peer = Peer {
            address,
            identity: peer.identity,
        };
        let decision = match facts.exempt {
            true => Decision::default(),
            false => decide(
                resolved,
                pod,
                direction,
                peer,
                flow.protocol,
                flow.destination_port,
            ),
        };
        Some(Judgement {
            enforced: judge(&decision.enforced),
            dry_run: judge(&decision.dry_run),
        })
    };
    Answer {
        egress: judgement(
            &facts.source,
            Direction::Egress,
            &facts.destination,
            flow.destination,
        ),
        ingress: judgement(&facts.destination, Direction::Ingress, &facts.source, flow.source),
    }
}

/// Whom a pod talks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// `None` where the address has none.
    pub identity: Option<IdentityNumber>,
}

/// The slots that hold for a pod and a peer: those of the peer's identity met with those of its CIDR.
#[must_use]
pub fn decide(
    resolved: &Resolved,
    pod: &PodId,
    direction: Direction,
    peer: Peer,
    protocol: u8,
    port: u16,
) -> Decision {
    let Some(set) = resolved.pods.get(pod).and_then(|&set| resolved.sets.get(set)) else {
        return Decision::default();
    };
    let side = match direction {
        Direction::Ingress => &set.ingress,
        Direction::Egress => &set.egress,
    };
    let Some(any) = &side.any else {
        return Decision::default();
    };
    let by_identity = peer
        .identity
        .and_then(|identity| side.identities.get(&identity))
        .unwrap_or(any);
    let by_cidr = cidr_entry(resolved, side, peer.address).unwrap_or(any);
    let decision = |entry| entry_decision(resolved, entry, protocol, port);
    meet(&decision(by_identity), &decision(by_cidr))
}

/// The entry of the longest CIDR that contains the address.
fn cidr_entry<'a>(resolved: &Resolved, side: &'a Side, address: IpAddr) -> Option<&'a Entry> {
    side.cidrs.get(&longest_cidr(&resolved.cidrs, address)?)
}

/// The index of the longest of the sorted CIDRs that contains the address.
#[must_use]
pub fn longest_cidr(cidrs: &[IpNet], address: IpAddr) -> Option<usize> {
    let longest = IpNet::from(address).prefix_len();
    let around = |len| IpNet::new(address, len).ok().map(|cidr| cidr.trunc());
    (0..=longest)
        .rev()
        .filter_map(around)
        .find_map(|cidr| cidrs.binary_search(&cidr).ok())
}

/// The decision of the longest prefix of the port that the entry's table has.
fn entry_decision(resolved: &Resolved, entry: &Entry, protocol: u8, port: u16) -> Decision {
    let table = entry.ports.and_then(|table| resolved.port_tables.get(table));
    let prefix = |len: u8| {
        let mask = u16::MAX.checked_shl(16 - u32::from(len)).unwrap_or(0);
        PortPrefix {
            protocol,
            len,
            port: port & mask,
        }
    };
    let found = table.and_then(|table| (0..=16).rev().find_map(|len| table.prefixes.get(&prefix(len))));
    found.copied().unwrap_or(entry.decision)
}
