//! One kernel map as bytes: reading, writing and deleting, in batches where the kernel can.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::MapInfo;
use aya_obj::generated::bpf_map_type;

use super::sys::{self, Cursor, Widths};

/// Entries a batch. The kernel copies a batch in one go, without rescheduling on older ones.
const BATCH: usize = 4096;

/// `BPF_NOEXIST`: fails with `EEXIST` where the key is present.
pub(super) const NO_EXIST: u64 = 1;

/// `ENOTSUPP`, which only the kernel itself knows: this kind of map has no batches (LPM tries before 5.14).
const ENOTSUPP: i32 = 524;

/// What makes two maps alike enough that programs made for the one work with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// A `bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) flags: u32,
    pub(super) max_entries: u32,
}

impl Shape {
    pub(super) fn of_pin(path: &Path) -> io::Result<Self> {
        Ok(Self::of_info(&MapInfo::from_pin(path).map_err(io::Error::other)?))
    }

    fn of_info(info: &MapInfo) -> Self {
        Self {
            kind: info.map_type().map_or(0, |kind| kind as u32),
            key_size: info.key_size(),
            value_size: info.value_size(),
            flags: info.map_flags(),
            max_entries: info.max_entries(),
        }
    }

    pub(super) fn is_per_cpu(&self) -> bool {
        [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ]
        .iter()
        .any(|kind| *kind as u32 == self.kind)
    }

    /// Whether every index below the capacity exists, and nothing can be deleted.
    pub(super) fn is_array(&self) -> bool {
        [
            bpf_map_type::BPF_MAP_TYPE_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        ]
        .iter()
        .any(|kind| *kind as u32 == self.kind)
    }

    pub(super) fn is_program_array(&self) -> bool {
        bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32 == self.kind
    }

    pub(super) fn is_ring(&self) -> bool {
        bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 == self.kind
    }
}

#[derive(Debug)]
pub(super) struct RawMap {
    fd: OwnedFd,
    pub(super) id: u32,
    pub(super) shape: Shape,
    pub(super) widths: Widths,
}

impl RawMap {
    pub(super) fn open(pin: &Path) -> io::Result<Self> {
        let info = MapInfo::from_pin(pin).map_err(io::Error::other)?;
        let shape = Shape::of_info(&info);
        let value = if shape.is_per_cpu() {
            // The kernel gives every CPU's value eight-byte alignment.
            (shape.value_size as usize).next_multiple_of(8) * cpus()?
        } else {
            shape.value_size as usize
        };
        Ok(Self {
            fd: sys::obj_get(pin)?,
            id: info.id(),
            shape,
            widths: Widths {
                key: shape.key_size as usize,
                value,
            },
        })
    }

    /// `None` where the key is absent.
    pub(super) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.widths.value];
        match sys::lookup(self.as_fd(), self.widths, key, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        sys::update(self.as_fd(), self.widths, key, value, flags)
    }

    /// A key that is absent is no error.
    pub(super) fn delete(&self, key: &[u8]) -> io::Result<()> {
        match sys::delete(self.as_fd(), self.widths, key) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Hands out every key and value, a batch at a time: keys side by side, values side by side.
    ///
    /// What programs insert or delete meanwhile may or may not be among them; nothing comes twice from a hash.
    pub(super) fn for_each_batch(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut room = BATCH.min(self.shape.max_entries as usize).max(1);
        let mut cursor: Option<Cursor> = None;
        let (mut keys, mut values) = self.buffers(room);
        loop {
            match sys::lookup_batch(self.as_fd(), self.widths, &mut cursor, &mut keys, &mut values) {
                Ok((count, last)) => {
                    each(
                        &keys[..count * self.widths.key],
                        &values[..count * self.widths.value],
                    )?;
                    if last {
                        return Ok(());
                    }
                }
                // One bucket of the hash holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    (keys, values) = self.buffers(room);
                }
                Err(error) if cursor.is_none() && is_unsupported(&error) => return self.walk(each),
                Err(error) => return Err(error),
            }
        }
    }

    /// Inserts or replaces. Keys and values stand side by side; the error is that of the first entry refused, with
    /// its index. What precedes it is in.
    pub(super) fn write(&self, keys: &[u8], values: &[u8]) -> Result<(), (usize, io::Error)> {
        let entries = self.entries(keys, values).map_err(|error| (0, error))?;
        for (index, (keys, values)) in keys
            .chunks(BATCH * self.widths.key)
            .zip(values.chunks(BATCH * self.widths.value))
            .enumerate()
        {
            if sys::update_batch(self.as_fd(), self.widths, keys, values).is_ok() {
                continue;
            }
            // One at a time the kernel says which entry it refuses, and maps without batches work as well.
            let first = index * BATCH;
            let last = entries.min(first + BATCH);
            for (at, (key, value)) in
                (first..last).zip(keys.chunks(self.widths.key).zip(values.chunks(self.widths.value)))
            {
                self.update(key, value, 0).map_err(|error| (at, error))?;
            }
        }
        Ok(())
    }

    /// Deletes; an absent key is no error. The error is that of the first key refused, with its index.
    pub(super) fn delete_all(&self, keys: &[u8]) -> Result<(), (usize, io::Error)> {
        for (index, chunk) in keys.chunks(BATCH * self.widths.key).enumerate() {
            if sys::delete_batch(self.as_fd(), self.widths, chunk).is_ok() {
                continue;
            }
            for (offset, key) in chunk.chunks(self.widths.key).enumerate() {
                self.delete(key)
                    .map_err(|error| (index * BATCH + offset, error))?;
            }
        }
        Ok(())
    }

    fn walk(&self, mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut key: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0; self.widths.key];
            match sys::next_key(self.as_fd(), self.widths, key.as_deref(), &mut next) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some(value) = self.lookup(&next)? {
                each(&next, &value)?;
            }
            key = Some(next);
        }
    }

    fn buffers(&self, room: usize) -> (Vec<u8>, Vec<u8>) {
        (vec![0; room * self.widths.key], vec![0; room * self.widths.value])
    }

    fn entries(&self, keys: &[u8], values: &[u8]) -> io::Result<usize> {
        let entries = keys.len() / self.widths.key;
        if keys.len() == entries * self.widths.key && values.len() == entries * self.widths.value {
            return Ok(entries);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "as many keys as values, each of the map's size",
        ))
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// CPUs that a per-CPU map has values for: all that may ever come, not those that run.
pub(super) fn cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn is_unsupported(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [ENOTSUPP, libc::EOPNOTSUPP, libc::EINVAL].contains(&code))
}
