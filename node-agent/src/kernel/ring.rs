//! The `events` ring buffer.

use std::fmt;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, RingBuf};

use super::Kernel;

/// The reading end. There must be one at a time: readers share one position, which outlives them.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    /// Hands out every record that is complete, oldest first, and returns how many there were. Does not wait: the
    /// programs wake nobody, so the caller comes back on a timer.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut records = 0;
        while let Some(record) = self.ring.next() {
            each(&record);
            records += 1;
        }
        records
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Kernel {
    /// The records that the programs write. Records that an agent before this one did not read are among them. Stays
    /// valid when maps grow.
    pub fn ring(&self) -> Result<Ring> {
        let context = "opening the ring buffer";
        let map = MapData::from_pin(self.home.map("events")).context(context)?;
        let ring = RingBuf::try_from(Map::from_map_data(map).context(context)?).context(context)?;
        Ok(Ring { ring })
    }
}
