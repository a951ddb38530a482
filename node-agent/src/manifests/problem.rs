//! What is wrong with a manifest.

use std::fmt;

use crate::manifests::object::ObjectKey;

/// Something in a file that is not done as it stands. Sorted by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestProblem {
    /// Name of the file within the directory; empty where the directory itself is meant.
    pub file: String,
    /// Place of the YAML document in the file, from 1; 0 where the whole file is meant.
    pub document: usize,
    /// From 1; `None` where it is not known.
    pub line: Option<usize>,
    pub object: Option<ObjectKey>,
    /// Like `spec.ports[0].port`; empty where the whole object is meant.
    pub field: String,
    pub code: ProblemCode,
    /// A sentence for the author.
    pub message: String,
    pub effect: Effect,
}

/// The kinds of problems. The names are stable: they are labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemCode {
    /// The file or directory cannot be read, or is no UTF-8.
    Unreadable,
    MalformedYaml,
    /// A document that is no Kubernetes object.
    NotAnObject,
    /// An `apiVersion` and `kind` that is not read here.
    UnknownKind,
    MissingName,
    InvalidName,
    Duplicate,
    WrongType,
    UnknownField,
    /// A value that the API server would not admit.
    InvalidValue,
    /// A namespace that no manifest describes.
    MissingNamespace,
    /// A pod without an address, or a Service without one.
    MissingAddress,
    /// A pod of this node of which the network namespace is not told.
    MissingNetns,
    InvalidAddress,
    /// The network namespace is another pod's.
    NetnsTaken,
    /// Two pods, or two Services, claim the same address.
    AddressTaken,
    WrongFamily,
    InvalidPort,
    InvalidProtocol,
}

/// What the problem does to the object that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The object is in force, but for what the message says.
    Noted,
    /// Nothing of the object is in force.
    Refused,
    /// What was read before, in this run, stays in force.
    EarlierVersion,
    /// The pods of this namespace are closed.
    ClosesNamespace(String),
    /// All pods are closed.
    ClosesAll,
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => Ok(()),
            Self::Refused => f.write_str("; nothing of it is in force"),
            Self::EarlierVersion => f.write_str("; the version that was read before stays in force"),
            Self::ClosesNamespace(namespace) => {
                write!(
                    f,
                    "; the pods of namespace {namespace} are closed until this is mended"
                )
            }
            Self::ClosesAll => f.write_str("; all pods are closed until this is mended"),
        }
    }
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.file.is_empty() {
            "the directory of manifests"
        } else {
            &self.file
        })?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}{} ({})", self.message, self.effect, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::object::Kind;

    #[test]
    fn a_problem_says_where_what_and_what_follows() {
        let problem = ManifestProblem {
            file: "40-policy.yaml".to_owned(),
            document: 2,
            line: Some(17),
            object: Some(ObjectKey::new(Kind::NetworkPolicy, "default", "web")),
            field: "spec.podSelctor".to_owned(),
            code: ProblemCode::UnknownField,
            message: "no such field".to_owned(),
            effect: Effect::ClosesNamespace("default".to_owned()),
        };
        assert_eq!(
            problem.to_string(),
            "40-policy.yaml:17: document 2: NetworkPolicy default/web: spec.podSelctor: no such field; the pods of \
             namespace default are closed until this is mended (UnknownField)"
        );
        let directory = ManifestProblem {
            file: String::new(),
            document: 0,
            line: None,
            object: None,
            field: String::new(),
            code: ProblemCode::Unreadable,
            message: "cannot be read".to_owned(),
            effect: Effect::ClosesAll,
        };
        assert_eq!(
            directory.to_string(),
            "the directory of manifests: cannot be read; all pods are closed until this is mended (Unreadable)"
        );
    }
}
