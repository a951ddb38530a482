//! The standalone agent on real interfaces: a node, pods and a host outside, in network namespaces.
//!
//! Each test makes its own node. A test says what every probe comes to and compares all of them at once; a change is
//! in force when they all come to it.

mod address;
mod leftovers;
mod log;
mod node;
mod policy;
mod probe;
mod wait;

mod bad_input;
mod between_nodes;
mod changes;
mod errors;
mod full_table;
mod outside;
mod paths;
mod remove;
mod restart;
mod rules;
mod sessions;
mod spoofing;
mod window;
