//! Asking the programs what they would do with a packet.

use anyhow::{Context as _, Result, bail};
use weir_abi::explain::Explanation;

use super::Kernel;
use super::bytes::from_bytes;
use super::test_run::TestPacket;

/// Length of a packet that the answer surely fits into.
const ROOM: usize = 128;

/// What `explain` returns when it wrote an answer (`TC_ACT_OK`).
const ANSWERED: i32 = 0;

impl Kernel {
    /// Decides on a packet as if the pod behind the interface had sent it, on the maps as they are. Changes nothing.
    ///
    /// `packet` starts with the Ethernet header.
    pub fn explain(&self, packet: &[u8], ifindex: u32) -> Result<Explanation> {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().max(ROOM), 0);
        let outcome = self.test_run(
            "explain",
            &TestPacket {
                bytes: &padded,
                ifindex,
                repeat: 1,
            },
        )?;
        if outcome.return_value != ANSWERED {
            bail!("explain gave no answer: it returned {}", outcome.return_value);
        }
        let answer = outcome.packet.get(..size_of::<Explanation>()).unwrap_or_default();
        from_bytes(answer).context("reading the answer of explain")
    }
}
