//! A policy in the one form that NetworkPolicy and ClusterNetworkPolicy are both lowered to.
//!
//! Nothing here can be malformed: what a policy says that cannot be expressed has become a
//! [`Problem`](crate::problem::Problem), and the rule already says what holds instead.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::resolved::{Action, Direction};
use crate::selector::Selector;

/// Which policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    pub kind: PolicyKind,
    /// `None` for cluster-wide kinds.
    pub namespace: Option<String>,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    NetworkPolicy,
    ClusterNetworkPolicy,
}

/// The tiers, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    Admin,
    NetworkPolicy,
    Baseline,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub reference: PolicyRef,
    pub tier: Tier,
    /// Within the tier, lower first: 0 to 1000. 0 for NetworkPolicy, whose order does not matter.
    pub priority: u16,
    /// Shows what it would do, and does nothing.
    pub dry_run: bool,
    /// The pods that it applies to.
    pub subject: PodSelector,
    pub ingress: Rules,
    pub egress: Rules,
}

/// What a policy says of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// A subject is denied everything that no NetworkPolicy allows it. Never set by ClusterNetworkPolicies.
    pub isolates: bool,
    /// In the order written. A rule that matches nothing is left out.
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Place in the list as written, from 0.
    pub index: usize,
    pub name: Option<String>,
    pub action: Action,
    pub peers: Peers,
    pub ports: Ports,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peers {
    /// Every address, inside the cluster and outside.
    Any,
    /// Whoever one of these matches.
    Of(Vec<Peer>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    Pods(PodSelector),
    /// By address alone, whoever has it.
    Network(Network),
}

/// Selects pods on the pod network; never those on their host's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodSelector {
    pub namespaces: Namespaces,
    pub pods: Selector,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Namespaces {
    Named(String),
    Labelled(Selector),
}

/// The addresses of `cidr` that are in no `except`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// Host bits are zero, here and in `except`.
    pub cidr: IpNet,
    pub except: Vec<IpNet>,
}

/// Protocols and destination ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// Every protocol, ICMP included.
    Any,
    /// What one of these matches.
    Of(Vec<PortMatch>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortMatch {
    /// `first` to `last`, both included. 0 to 65535 is the whole protocol.
    Range {
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    /// The ports that the destination pod gives this name, of every protocol where none is given. No port at all
    /// where the destination was matched by its address.
    Named {
        protocol: Option<Protocol>,
        name: String,
    },
}

/// The protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl PolicyRef {
    pub fn network_policy(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    pub fn cluster_network_policy(name: impl Into<String>) -> Self {
        Self {
            kind: PolicyKind::ClusterNetworkPolicy,
            namespace: None,
            name: name.into(),
        }
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        })
    }
}

impl Policy {
    #[must_use]
    pub fn rules(&self, direction: Direction) -> &Rules {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Rules {
    /// Whether this direction is left as if the policy did not exist.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.isolates && self.rules.is_empty()
    }
}

impl PodSelector {
    /// Every pod of every namespace.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            namespaces: Namespaces::Labelled(Selector::default()),
            pods: Selector::default(),
        }
    }
}

impl Protocol {
    /// By the API's name: `TCP`, `UDP` or `SCTP`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
