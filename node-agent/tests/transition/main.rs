//! On the way from one state of the maps to the next, no packet meets anything but the old policy or the new one,
//! wherever the agent stops; and whatever the way, it ends in the same place.

mod between;
mod cidrs;
mod histories;
#[path = "../judging/mod.rs"]
mod judging;
mod scenes;
mod scratch;
mod watch;

/// The node that the maps are of.
const NODE: &str = judging::cluster::NODES[0];
