//! The plan over whole clusters, generated and large ones.

#![expect(clippy::unwrap_used, reason = "tests")]

mod generated;
mod kernels;
mod large;
mod simulation;
mod view;
