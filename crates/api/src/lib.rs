//! The API types that Weir reads and writes, one kind a file.
//!
//! [`cluster_network_policy`] is the upstream kind, field for field; [`flow_log_policy`] is Weir's own. The schemas
//! that their CustomResourceDefinitions carry are derived from these types.

pub mod cluster_network_policy;
pub mod flow_log_policy;
mod schema;

pub use cluster_network_policy::{ClusterNetworkPolicy, ClusterNetworkPolicySpec};
pub use flow_log_policy::{FlowLogPolicy, FlowLogPolicySpec};
