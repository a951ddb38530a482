//! The operator: turns what people wrote into one desired state a node, and tells them what became of it.
//!
//! What the watches tell ([`watch`], [`convert`]) is kept in one [`world::World`]: what people and the cluster say
//! ([`cluster`]), what has been written so far and how far the nodes are with it ([`existing`]), and which agents are
//! alive ([`agents`]). When that has changed, [`plan::plan`] works out everything that is wanted, [`writes::writes`] what
//! of it has to be written and in which order, [`statuses::statuses`] what is to be told. All of these are pure
//! functions; [`lead`] calls them, and [`apply`] writes. One replica does that at a time ([`lease`]).
//!
//! # Writing in order
//!
//! A node's policies tell pods apart by the identities that addresses have in the book. So that no address ever has an
//! identity that is too coarse for a policy in some kernel, new identities and addresses are written first, then the
//! heads, then the NodeDataplanes, which name the head that they rely on. A label key that no policy needs any more stays
//! relevant until no node's kernel holds a policy that looks at it, and an identity stays in the book until no address
//! has it and no node looks its own pods up by it. What is known of a node is the last spec that was written, the one
//! that it acknowledged, and one whose writing was not answered; it may go by any of them.
//!
//! Slices of either kind are split before they are too large for an object. A NodeDataplane that would be larger than
//! [`plan::MOST_SPEC_BYTES`] is not written: the node stays with the one before, its new pods stay closed, and its
//! policies say `TooLarge`, with the node's name and the size. A policy of one rule with two peers takes some 700 bytes,
//! a network in a rule some 50.
//!
//! # What agents report
//!
//! - `status.programmedGeneration`, and a Lease named [`agents::LEASE_PREFIX`] and the node's name. A node without one
//!   counts as one without an agent.
//! - `status.refused`: fields as a DataplaneConfig names them, `spec.network.mode`, or `flowLogs.<name>` for a
//!   FlowLogPolicy. They become `Degraded` of the config that set the field on that node, or of the FlowLogPolicy.
//! - The condition `Degraded`. With a reason that begins with `FlowLog` it is told on every FlowLogPolicy, otherwise on
//!   every DataplaneConfig that selects the node.
//!
//! # Rights
//!
//! In the whole cluster:
//!
//! | API group | resources | verbs |
//! |---|---|---|
//! | (core) | `namespaces`, `nodes`, `pods` | list, watch |
//! | `networking.k8s.io` | `networkpolicies` | list, watch |
//! | `policy.networking.k8s.io` | `clusternetworkpolicies` | list, watch |
//! | `policy.networking.k8s.io` | `clusternetworkpolicies/status` | patch |
//! | `dataplane.weir.dev` | `dataplaneconfigs`, `flowlogpolicies` | list, watch |
//! | `dataplane.weir.dev` | `dataplaneconfigs/status`, `flowlogpolicies/status`, `policystatuses/status` | patch |
//! | `dataplane.weir.dev` | `nodedataplanes` | list, watch, create, patch |
//! | `dataplane.weir.dev` | `policystatuses` | list, watch, create, patch, delete |
//! | `dataplane.weir.dev` | `identityslices`, `addressslices` | list, watch, create, patch, delete |
//! | `events.k8s.io` | `events` | create, patch |
//!
//! In its own namespace:
//!
//! | API group | resources | verbs |
//! |---|---|---|
//! | `coordination.k8s.io` | `leases` | list, watch, create |
//! | `coordination.k8s.io` | `leases` named `weir-operator` | get, update |

pub mod agents;
pub mod apply;
pub mod args;
pub mod cluster;
pub mod conditions;
pub mod convert;
pub mod decode;
pub mod digest;
pub mod events;
pub mod existing;
pub mod health;
pub mod lead;
pub mod lease;
pub mod metrics;
pub mod pace;
pub mod plan;
pub mod run;
pub mod settings;
pub mod specs;
pub mod statuses;
pub mod watch;
pub mod world;
pub mod writes;
