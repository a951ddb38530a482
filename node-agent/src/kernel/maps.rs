//! The maps as the rest of the agent sees them: typed, and with errors that name the map and the key.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use weir_abi::config::{Control, OVERFLOW_INDEX};
use weir_abi::plain::Plain;

use super::Kernel;
use super::bytes::{as_bytes, from_bytes};
use super::copy::is_full;
use super::raw_map::RawMap;
use crate::table::{Maps, Table};

const CONTROL_INDEX: u32 = 0;

impl Maps for Kernel {
    fn read<T: Table>(&self) -> io::Result<BTreeMap<T::Key, T::Value>> {
        let map = self.table::<T>()?;
        let mut entries = BTreeMap::new();
        map.for_each_batch(|keys, values| {
            for (key, value) in keys.chunks(map.widths.key).zip(values.chunks(map.widths.value)) {
                if !(map.shape.is_array() && is_zero(value)) {
                    entries.insert(from_bytes(key)?, from_bytes(value)?);
                }
            }
            Ok(())
        })
        .map_err(|error| annotate(error, T::NAME, "reading"))?;
        Ok(entries)
    }

    fn write<T: Table>(&mut self, entries: &[(T::Key, T::Value)]) -> io::Result<()> {
        let map = self.table::<T>()?;
        let keys: Vec<T::Key> = entries.iter().map(|(key, _)| *key).collect();
        let values: Vec<T::Value> = entries.iter().map(|(_, value)| *value).collect();
        map.write(as_bytes(&keys), as_bytes(&values))
            .map_err(|(index, error)| refused(error, T::NAME, "writing", map, keys.get(index)))
    }

    fn delete<T: Table>(&mut self, keys: &[T::Key]) -> io::Result<()> {
        let map = self.table::<T>()?;
        let result = if map.shape.is_array() {
            map.write(as_bytes(keys), &vec![0; keys.len() * map.widths.value])
        } else {
            map.delete_all(as_bytes(keys))
        };
        result.map_err(|(index, error)| refused(error, T::NAME, "deleting", map, keys.get(index)))
    }

    fn control(&self) -> io::Result<Control> {
        self.entry("control", CONTROL_INDEX)
    }

    fn set_control(&mut self, control: Control) -> io::Result<()> {
        self.map("control")?
            .update(as_bytes(&[CONTROL_INDEX]), as_bytes(&[control]), 0)
            .map_err(|error| annotate(error, "control", "writing"))
    }
}

impl Kernel {
    /// Entries that the map has room for.
    pub fn capacity<T: Table>(&self) -> io::Result<u32> {
        Ok(self.table::<T>()?.shape.max_entries)
    }

    /// Entries that are in the map; of an array, those that are not all zero. Reads the whole map.
    pub fn occupancy<T: Table>(&self) -> io::Result<u32> {
        self.occupied(T::NAME)
    }

    /// When the flow table last refused an entry, by [`now`](Self::now); 0 for never.
    pub fn overflow(&self) -> io::Result<u32> {
        self.entry("overflow", OVERFLOW_INDEX)
    }

    /// Kernel ids of the maps, by name.
    pub fn map_ids(&self) -> BTreeMap<String, u32> {
        self.generation
            .maps
            .iter()
            .map(|(name, map)| (name.clone(), map.id))
            .collect()
    }

    pub(super) fn occupied(&self, name: &str) -> io::Result<u32> {
        let map = self.map(name)?;
        let mut count = 0;
        map.for_each_batch(|keys, values| {
            count += if map.shape.is_array() {
                values
                    .chunks(map.widths.value)
                    .filter(|value| !is_zero(value))
                    .count()
            } else {
                keys.len() / map.widths.key
            };
            Ok(())
        })
        .map_err(|error| annotate(error, name, "counting"))?;
        u32::try_from(count).map_err(io::Error::other)
    }

    pub(super) fn map(&self, name: &str) -> io::Result<&RawMap> {
        self.generation.maps.get(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("map {name}: the object has none"),
            )
        })
    }

    fn table<T: Table>(&self) -> io::Result<&RawMap> {
        let map = self.map(T::NAME)?;
        let sizes = (size_of::<T::Key>(), size_of::<T::Value>());
        if (map.widths.key, map.widths.value) == sizes {
            return Ok(map);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "map {}: keys and values of {} and {} bytes, where the agent has {} and {}",
                T::NAME,
                map.widths.key,
                map.widths.value,
                sizes.0,
                sizes.1
            ),
        ))
    }

    /// An entry of an array.
    fn entry<V: Plain>(&self, name: &str, index: u32) -> io::Result<V> {
        self.map(name)?
            .lookup(as_bytes(&[index]))
            .and_then(|value| from_bytes(&value.ok_or(io::ErrorKind::NotFound)?))
            .map_err(|error| annotate(error, name, "reading"))
    }
}

pub(super) fn annotate(error: io::Error, map: &str, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("map {map}: {doing}: {error}"))
}

/// A full map gives [`io::ErrorKind::StorageFull`].
fn refused<K: Debug>(error: io::Error, name: &str, doing: &str, map: &RawMap, key: Option<&K>) -> io::Error {
    let key = key.map_or_else(|| "an entry".to_owned(), |key| format!("{key:?}"));
    if is_full(&error) {
        return io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "map {name}: {doing} {key}: the map is full, it has room for {} entries",
                map.shape.max_entries
            ),
        );
    }
    annotate(error, name, &format!("{doing} {key}"))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
