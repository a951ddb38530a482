//! The node agent: makes the kernel hold the desired state and reports what it decides.

pub mod admin;
pub mod contents;
pub mod desired;
pub mod flow;
pub mod kernel;
pub mod log_wishes;
pub mod manifests;
pub mod metrics;
pub mod numbers;
pub mod plan;
pub mod services;
pub mod sync;
pub mod table;
pub mod transition;
pub mod workloads;
