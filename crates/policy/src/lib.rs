//! From API objects to what each pod may do: snapshot, lower, span, resolve, and the oracle that judges them.
//!
//! 1. [`snapshot::Snapshot`]: the objects, as one sorted value.
//! 2. [`lower::lower`]: each policy in one form, [`model::Policy`], and what is wrong with it.
//! 3. [`span::spans`]: which nodes a policy concerns.
//! 4. [`identity::Relevance`]: which labels matter; so which pods are equal.
//! 5. [`resolve::resolve`]: the decisions for the pods of one node, [`resolved::Resolved`].
//! 6. [`evaluate::evaluate`]: what these decisions say of one flow.
//!
//! [`oracle::answer`] judges a flow a second time, from the API's words alone; tests hold the two against each other.
//! [`explain`] says which rule came nearest to allowing a flow that isolation denied.
//!
//! Everything is a pure function of its arguments. Malformed objects are answered with problems, never with errors.

#[cfg(feature = "arbitrary")]
pub mod arbitrary;
#[cfg(feature = "arbitrary")]
pub mod cluster;
pub mod evaluate;
pub mod explain;
pub mod identity;
pub mod lower;
pub mod model;
pub mod oracle;
pub mod order;
pub mod problem;
pub mod resolve;
pub mod resolved;
pub mod selector;
pub mod snapshot;
pub mod span;

pub use lower::{Lowered, lower};
pub use resolve::resolve;
