//! The flow tables as the agent sees them: reading, counting, and removing what is idle.

use std::io;

use weir_abi::flow::{FlowKey4, FlowKey6, FlowValue};
use weir_abi::plain::Plain;
use weir_datapath::flow::is_idle;

use super::Kernel;
use super::bytes::{as_bytes, from_bytes};
use super::maps::annotate;
use super::test_run::TestPacket;

/// A flow table's key, of either family.
pub trait FlowKey: Plain {
    /// Of the table.
    const NAME: &'static str;
    /// IP protocol number.
    fn protocol(&self) -> u8;
}

impl FlowKey for FlowKey4 {
    const NAME: &'static str = "flows4";

    fn protocol(&self) -> u8 {
        self.protocol
    }
}

impl FlowKey for FlowKey6 {
    const NAME: &'static str = "flows6";

    fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// What one table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowTable {
    /// Entries that stay.
    pub entries: u32,
    /// Entries that were idle for too long, and were removed.
    pub expired: u32,
    pub capacity: u32,
}

/// What both tables hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowTables {
    pub v4: FlowTable,
    pub v6: FlowTable,
}

impl Kernel {
    /// What time it is by the programs' clock, in units of about a second
    /// ([`CLOCK_SHIFT`](weir_abi::config::global::CLOCK_SHIFT)).
    ///
    /// # Errors
    ///
    /// If the program that tells it cannot be run.
    pub fn now(&self) -> anyhow::Result<u32> {
        let packet = TestPacket {
            bytes: &[0; 64],
            ifindex: 0,
            repeat: 1,
        };
        Ok(self.test_run("clock", &packet)?.return_value.cast_unsigned())
    }

    /// Removes flows that the programs would treat as absent anyway, to make room. `now` is by
    /// [`now`](Self::now).
    ///
    /// A flow whose next packet comes between its being read and removed is decided again, like any new one.
    pub fn expire_flows(&mut self, now: u32) -> io::Result<FlowTables> {
        Ok(FlowTables {
            v4: self.expire::<FlowKey4>(now)?,
            v6: self.expire::<FlowKey6>(now)?,
        })
    }

    /// Hands out every entry of one table. What the programs insert meanwhile may or may not be among them.
    pub fn for_each_flow<K: FlowKey>(&self, mut each: impl FnMut(K, FlowValue)) -> io::Result<()> {
        let map = self.map(K::NAME)?;
        map.for_each_batch(|keys, values| {
            for (key, value) in keys.chunks(map.widths.key).zip(values.chunks(map.widths.value)) {
                each(from_bytes(key)?, from_bytes(value)?);
            }
            Ok(())
        })
        .map_err(|error| annotate(error, K::NAME, "reading"))
    }

    /// Inserts or replaces entries, as a program would.
    pub fn write_flows<K: FlowKey>(&mut self, flows: &[(K, FlowValue)]) -> io::Result<()> {
        let (keys, values): (Vec<K>, Vec<FlowValue>) = flows.iter().copied().unzip();
        self.map(K::NAME)?
            .write(as_bytes(&keys), as_bytes(&values))
            .map_err(|(_, error)| annotate(error, K::NAME, "writing"))
    }

    fn expire<K: FlowKey>(&mut self, now: u32) -> io::Result<FlowTable> {
        let map = self.map(K::NAME)?;
        let mut table = FlowTable {
            capacity: map.shape.max_entries,
            ..FlowTable::default()
        };
        map.for_each_batch(|keys, values| {
            let idle = idle_keys::<K>(keys, values, now)?;
            map.delete_all(as_bytes(&idle)).map_err(|(_, error)| error)?;
            let all = keys.len() / size_of::<K>();
            table.expired += idle.len() as u32;
            table.entries += (all - idle.len()) as u32;
            Ok(())
        })
        .map_err(|error| annotate(error, K::NAME, "expiring"))?;
        Ok(table)
    }
}

fn idle_keys<K: FlowKey>(keys: &[u8], values: &[u8], now: u32) -> io::Result<Vec<K>> {
    let mut idle = Vec::new();
    for (key, value) in keys
        .chunks(size_of::<K>())
        .zip(values.chunks(size_of::<FlowValue>()))
    {
        let key: K = from_bytes(key)?;
        if is_idle(&from_bytes(value)?, key.protocol(), now) {
            idle.push(key);
        }
    }
    Ok(idle)
}
