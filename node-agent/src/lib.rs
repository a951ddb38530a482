//! The node agent: makes the kernel hold the desired state and reports what it decides.

pub mod admin;
pub mod args;
pub mod clock;
pub mod contents;
pub mod desired;
pub mod flow;
pub mod kernel;
pub mod log_reader;
pub mod log_settings;
pub mod log_wishes;
pub mod manifests;
pub mod metrics;
pub mod names;
pub mod node_links;
pub mod numbers;
pub mod plan;
pub mod problems;
pub mod programming;
pub mod run;
pub mod scrape;
pub mod services;
pub mod standalone;
pub mod sync;
pub mod table;
pub mod transition;
pub mod workloads;
