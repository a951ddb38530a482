//! The API types that Weir reads and writes, one kind a file.
//!
//! People write [`cluster_network_policy`], the upstream kind, field for field, and Weir's own [`dataplane_config`] and
//! [`flow_log_policy`]. The operator tells by [`policy_status`] what became of a NetworkPolicy, and hands the nodes
//! what they need: to each its [`node_dataplane`], to all the address book, [`identity_slice`] and [`address_slice`].
//! The schemas that their CustomResourceDefinitions carry are derived from these types.

pub mod address_slice;
pub mod cluster_network_policy;
pub mod dataplane_config;
pub mod flow_log_policy;
pub mod identity_slice;
pub mod node_dataplane;
pub mod policy_status;
mod schema;

pub use address_slice::{AddressSlice, AddressSliceSpec};
pub use cluster_network_policy::{ClusterNetworkPolicy, ClusterNetworkPolicySpec};
pub use dataplane_config::{DataplaneConfig, DataplaneConfigSpec, DataplaneSettings};
pub use flow_log_policy::{FlowLogPolicy, FlowLogPolicySpec};
pub use identity_slice::{IdentitySlice, IdentitySliceSpec};
pub use node_dataplane::{NodeDataplane, NodeDataplaneSpec};
pub use policy_status::{PolicyStatus, PolicyStatusSpec};
