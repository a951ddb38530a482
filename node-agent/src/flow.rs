//! The policy log: raw records out of the ring buffer → named records → JSON lines in a rotated file.
//!
//! ```text
//! bytes ─ decode ─ sequence ─ enrich ─ aggregate ─ budget ─ sink ─ file
//! ```
//!
//! Everything up to the sink is pure. **What is not written is counted where it is lost and appears as `lost` in the
//! next line**, so that counts and losses over the log add up to what the kernel counted.

pub mod aggregate;
pub mod budget;
pub mod decode;
pub mod enrich;
pub mod file;
pub mod kernel_loss;
pub mod names;
pub mod pipeline;
pub mod reconcile;
pub mod record;
pub mod sequence;
pub mod sink;
