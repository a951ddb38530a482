//! One file a kind of hook.

pub mod explain;
pub mod packet;
pub mod socket;
