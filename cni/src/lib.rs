//! The CNI plugin `weir-cni`: what the container runtime runs for each pod, and what it and the node agent say to
//! each other.
//!
//! The plugin thinks little. It reads the runtime's question ([`environment`], [`config`]), puts it to the agent
//! over a Unix socket ([`protocol`], [`agent`]), and writes the answer in the version of the CNI specification that
//! the runtime asked in ([`result`], [`error`]). All state is the agent's.
//!
//! While the agent is away, or does not answer in time:
//!
//! | verb | answer | why |
//! |---|---|---|
//! | `ADD` | error 11 | nobody else may give addresses; the runtime tries again |
//! | `DEL` | success, and a note for the agent ([`deletions`]) | a pod's end must not wait for an agent: the pair of interfaces goes with the pod's namespace, and until the agent reads the note the address stays taken |
//! | `CHECK`, `GC` | error 11 | nothing is known, and nothing is lost by trying again |
//! | `STATUS` | error 50 | `ADD` cannot be served; pods that run keep their network, which is the kernel's |
//!
//! Facts of the CNI specification are those of version 1.1.0, and of libcni 1.3.

pub mod agent;
mod check;
pub mod config;
pub mod deletions;
pub mod environment;
pub mod error;
pub mod plugin;
pub mod protocol;
pub mod result;
pub mod version;

pub use error::CniError;
