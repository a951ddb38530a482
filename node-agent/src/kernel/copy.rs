//! Carrying a map's contents over into the map that replaces it.

use std::io;

use super::bytes::{as_bytes, from_bytes};
use super::raw_map::{NO_EXIST, RawMap};

/// What became of the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) entries: u64,
    /// For which the new map had no room.
    pub(super) refused: u64,
}

/// Whether a map refused an entry for want of room. Hashes and arrays say `E2BIG`, LPM tries `ENOSPC`.
pub(super) fn is_full(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [libc::E2BIG, libc::ENOSPC].contains(&code))
}

/// Everything that is in `from`. What the new map has no room for is counted, not an error.
pub(super) fn copy_all(from: &RawMap, to: &RawMap) -> io::Result<Copied> {
    let mut copied = Copied::default();
    from.for_each_batch(|keys, values| {
        match to.write(keys, values) {
            Ok(()) => copied.entries += (keys.len() / from.widths.key) as u64,
            Err((_, error)) if is_full(&error) => copy_each(from, to, keys, values, 0, &mut copied)?,
            Err((_, error)) => return Err(error),
        }
        Ok(())
    })?;
    Ok(copied)
}

/// Of a hash: what is in `from` and not in `to`.
pub(super) fn copy_missing(from: &RawMap, to: &RawMap) -> io::Result<Copied> {
    let mut copied = Copied::default();
    // One at a time: batches take no BPF_NOEXIST.
    from.for_each_batch(|keys, values| copy_each(from, to, keys, values, NO_EXIST, &mut copied))?;
    Ok(copied)
}

/// Contents of a per-CPU array of counters at one moment.
#[derive(Debug)]
pub(super) struct Counts(Vec<(Vec<u8>, Vec<u8>)>);

impl Counts {
    pub(super) fn of(map: &RawMap) -> io::Result<Self> {
        let mut counts = Vec::new();
        map.for_each_batch(|keys, values| {
            let entries = keys.chunks(map.widths.key).zip(values.chunks(map.widths.value));
            counts.extend(entries.map(|(key, value)| (key.to_vec(), value.to_vec())));
            Ok(())
        })?;
        Ok(Self(counts))
    }

    /// Sets `to` to them.
    pub(super) fn write(&self, to: &RawMap) -> io::Result<Copied> {
        let keys: Vec<u8> = self.0.iter().flat_map(|(key, _)| key.clone()).collect();
        let values: Vec<u8> = self.0.iter().flat_map(|(_, value)| value.clone()).collect();
        to.write(&keys, &values).map_err(|(_, error)| error)?;
        Ok(Copied {
            entries: self.0.len() as u64,
            refused: 0,
        })
    }

    /// Adds to `to` what `from` has counted since this moment. The values must be made of `u64`.
    pub(super) fn add_growth(&self, from: &RawMap, to: &RawMap) -> io::Result<()> {
        for (key, before) in &self.0 {
            let Some(after) = from.lookup(key)? else { continue };
            if after == *before {
                continue;
            }
            let Some(mut sum) = to.lookup(key)? else { continue };
            for (sum, (after, before)) in sum.chunks_mut(8).zip(after.chunks(8).zip(before.chunks(8))) {
                let growth = from_bytes::<u64>(after)?.wrapping_sub(from_bytes::<u64>(before)?);
                let total = from_bytes::<u64>(sum)?.wrapping_add(growth);
                sum.copy_from_slice(as_bytes(&[total]));
            }
            to.update(key, &sum, 0)?;
        }
        Ok(())
    }
}

fn copy_each(
    from: &RawMap,
    to: &RawMap,
    keys: &[u8],
    values: &[u8],
    flags: u64,
    copied: &mut Copied,
) -> io::Result<()> {
    for (key, value) in keys.chunks(from.widths.key).zip(values.chunks(from.widths.value)) {
        match to.update(key, value, flags) {
            Ok(()) => copied.entries += 1,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) if is_full(&error) => copied.refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
