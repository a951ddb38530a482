//! What is wrong with an object that somebody wrote.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::PolicyRef;

/// Something that an object says and that is not done as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    pub object: ObjectRef,
    /// Like `spec.ingress[2].from[0].ipBlock.except[1]`.
    pub field: String,
    pub code: Code,
    /// A sentence for the object's author: what is wrong, and what holds instead.
    pub message: String,
}

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

/// The kinds of problems. The names are stable: they are the reasons of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    InvalidSelector,
    InvalidSubject,
    InvalidPeer,
    /// A peer of a kind that Weir does not enforce.
    UnsupportedPeer,
    InvalidCidr,
    HostBitsSet,
    ExceptOutsideCidr,
    InvalidProtocol,
    InvalidPort,
    InvalidPortRange,
    NamedPortOnNetwork,
    InvalidPolicyType,
    /// Rules of a direction that `policyTypes` leaves out.
    IgnoredRules,
    PriorityOutOfRange,
    /// Policies of the same tier and priority.
    PriorityTie,
    TooManyItems,
    Duplicate,
    InvalidAnnotation,
    InvalidValue,
    SelectsNothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// The object does what it says, perhaps not what its author meant.
    Note,
    /// The part is read in the one sense that it can have.
    Warning,
    /// The part is not understood, and fails closed.
    Error,
}

impl Problem {
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl Code {
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::InvalidSelector
            | Self::InvalidSubject
            | Self::InvalidPeer
            | Self::UnsupportedPeer
            | Self::InvalidCidr
            | Self::InvalidProtocol
            | Self::InvalidPort
            | Self::InvalidPortRange
            | Self::InvalidPolicyType
            | Self::InvalidAnnotation
            | Self::InvalidValue => Severity::Error,
            Self::HostBitsSet
            | Self::ExceptOutsideCidr
            | Self::NamedPortOnNetwork
            | Self::IgnoredRules
            | Self::PriorityOutOfRange
            | Self::TooManyItems => Severity::Warning,
            Self::PriorityTie | Self::Duplicate | Self::SelectsNothing => Severity::Note,
        }
    }
}

impl From<&PolicyRef> for ObjectRef {
    fn from(policy: &PolicyRef) -> Self {
        Self {
            kind: policy.kind.to_string(),
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {} ({})",
            self.object, self.field, self.message, self.code
        )
    }
}
