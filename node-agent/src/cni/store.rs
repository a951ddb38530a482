//! Which pods are attached, on disk: a file for each, which outlives the agent and a reboot of the node.
//!
//! ```text
//! DIR/attachments/weirfd61c7d1f13.json   an attachment, named after the node's end
//! DIR/unreadable/weir0c5d1e2f3a4.json    a file that could not be read, as it was
//! DIR/freed.json                         addresses that were given up, oldest first
//! DIR/lock                               held by the agent that has the store open
//! ```
//!
//! All functions block for as long as the disk takes.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use weir_policy::snapshot::PodId;

pub use super::AttachmentId;
use super::durable;
use crate::workloads::PodLink;

/// What was given to a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub pod: PodId,
    /// As the runtime gave it; a static pod's is not the one that its mirror in the API has.
    pub pod_uid: String,
    /// As the runtime gave it. It may be gone.
    pub netns: PathBuf,
    /// The same as in the id.
    pub ifname: String,
    /// As [`host_ifname`](super::host_ifname) makes it of the id.
    pub host_ifname: String,
    /// At least one, in the order in which the runtime is told of them.
    pub addresses: Vec<IpAddr>,
    /// In bytes without the Ethernet header.
    pub mtu: u32,
    pub created: Timestamp,
}

impl Attachment {
    /// What is to be in the kernel.
    pub fn link(&self) -> PodLink {
        PodLink {
            netns: self.netns.clone(),
            host_ifname: self.host_ifname.clone(),
            pod_ifname: self.ifname.clone(),
            addresses: self.addresses.clone(),
            mtu: self.mtu,
        }
    }
}

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it lies.
    pub path: PathBuf,
    pub why: String,
    /// All that look like addresses in it. They stay taken.
    pub addresses: BTreeSet<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: another agent has the store open", path.display())]
    Locked { path: PathBuf },
    #[error("{}: {address} is taken already, by {owner}", id.container_id)]
    AddressTaken {
        id: AttachmentId,
        address: IpAddr,
        owner: String,
    },
    #[error("{}: the interface name {host_ifname} belongs to {}", id.container_id, owner.container_id)]
    NameTaken {
        id: AttachmentId,
        host_ifname: String,
        owner: AttachmentId,
    },
    #[error("{}: {why}", id.container_id)]
    Invalid { id: AttachmentId, why: String },
}

/// How many addresses are remembered after they were given up.
pub const MAX_FREED: usize = 1024;

/// What is on disk, in memory too. One agent has it open at a time.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    attachments: BTreeMap<AttachmentId, Attachment>,
    /// By the name of the node's end, or of the file.
    unreadable: BTreeMap<String, Unreadable>,
    freed: Vec<IpAddr>,
    /// Unlocks when it is closed.
    _lock: File,
}

impl Store {
    /// Reads what is in the directory, which is made if it is not there. A file that cannot be read is moved to
    /// `unreadable/` and is in [`unreadable`](Self::unreadable), to be told of; it is no error.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        for directory in [directory, &attachments_in(directory), &unreadable_in(directory)] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(at(directory))?;
        }
        let lock = lock(directory)?;
        let mut store = Store {
            directory: directory.into(),
            attachments: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            freed: Vec::new(),
            _lock: lock,
        };
        store.read_set_aside()?;
        store.read_attachments()?;
        store.read_freed()?;
        Ok(store)
    }

    pub fn attachments(&self) -> &BTreeMap<AttachmentId, Attachment> {
        &self.attachments
    }

    /// Files that could not be read, at this start or an earlier one, by the name of the node's end that they are of.
    pub fn unreadable(&self) -> &BTreeMap<String, Unreadable> {
        &self.unreadable
    }

    /// All addresses that no pod may be given.
    pub fn in_use(&self) -> BTreeSet<IpAddr> {
        let attached = self.attachments.values().flat_map(|one| one.addresses.iter());
        let unreadable = self.unreadable.values().flat_map(|one| one.addresses.iter());
        attached.chain(unreadable).copied().collect()
    }

    /// Addresses that were given up and not given again, oldest first; the newest [`MAX_FREED`].
    pub fn recently_freed(&self) -> &[IpAddr] {
        &self.freed
    }

    /// Writes an attachment, which is on disk once this returns. What was there under the same id is replaced. An
    /// address or an interface of another attachment is refused, and nothing is changed.
    pub fn insert(&mut self, id: AttachmentId, attachment: Attachment) -> Result<(), StoreError> {
        self.validate(&id, &attachment)?;
        let path = self.path(&attachment.host_ifname);
        file::write(&id, &attachment)
            .and_then(|bytes| durable::replace(&path, &bytes, 0o600))
            .map_err(at(&path))?;
        self.freed.retain(|one| !attachment.addresses.contains(one));
        self.attachments.insert(id, attachment);
        Ok(())
    }

    /// Forgets an attachment, and remembers its addresses as freed. Returns it, or `None` where there is none. A file of
    /// it that could not be read goes too.
    pub fn remove(&mut self, id: &AttachmentId) -> Result<Option<Attachment>, StoreError> {
        self.forget_unreadable(&super::host_ifname(&id.container_id, &id.ifname))?;
        let Some(attachment) = self.attachments.get(id) else {
            return Ok(None);
        };
        let path = self.path(&attachment.host_ifname);
        // First, so that a crash between leaves an address that is both, which the attachment decides.
        self.free(attachment.addresses.clone())?;
        durable::remove(&path).map_err(at(&path))?;
        Ok(self.attachments.remove(id))
    }

    /// Removes what could not be read of an attachment, and frees the addresses in it: for when its interface is gone.
    /// Returns whether there was anything.
    pub fn forget_unreadable(&mut self, host_ifname: &str) -> Result<bool, StoreError> {
        let is_of_it = |name: &str| {
            name.strip_prefix(host_ifname)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let names: Vec<String> = self
            .unreadable
            .keys()
            .filter(|name| is_of_it(name))
            .cloned()
            .collect();
        for name in &names {
            let Some(unreadable) = self.unreadable.get(name) else {
                continue;
            };
            let path = unreadable.path.clone();
            self.free(unreadable.addresses.iter().copied().collect())?;
            durable::remove(&path).map_err(at(&path))?;
            self.unreadable.remove(name);
        }
        Ok(!names.is_empty())
    }

    fn validate(&self, id: &AttachmentId, attachment: &Attachment) -> Result<(), StoreError> {
        file::check(id, attachment).map_err(|why| StoreError::Invalid { id: id.clone(), why })?;
        for (other_id, other) in self.attachments.iter().filter(|(other, _)| *other != id) {
            if other.host_ifname == attachment.host_ifname {
                return Err(StoreError::NameTaken {
                    id: id.clone(),
                    host_ifname: attachment.host_ifname.clone(),
                    owner: other_id.clone(),
                });
            }
            if let Some(address) = overlap(attachment, other.addresses.iter()) {
                return Err(StoreError::AddressTaken {
                    id: id.clone(),
                    address,
                    owner: other_id.container_id.clone(),
                });
            }
        }
        let unreadable = self.unreadable.values();
        let taken = unreadable
            .filter_map(|other| Some((overlap(attachment, other.addresses.iter())?, other)))
            .next();
        taken.map_or(Ok(()), |(address, other)| {
            Err(StoreError::AddressTaken {
                id: id.clone(),
                address,
                owner: other.path.display().to_string(),
            })
        })
    }

    fn free(&mut self, addresses: Vec<IpAddr>) -> Result<(), StoreError> {
        let mut freed = self.freed.clone();
        freed.retain(|one| !addresses.contains(one));
        freed.extend(addresses);
        freed.drain(..freed.len().saturating_sub(MAX_FREED));
        let path = self.directory.join(FREED);
        file::write_freed(&freed)
            .and_then(|bytes| durable::replace(&path, &bytes, 0o600))
            .map_err(at(&path))?;
        self.freed = freed;
        Ok(())
    }

    fn path(&self, host_ifname: &str) -> PathBuf {
        attachments_in(&self.directory).join(format!("{host_ifname}.json"))
    }

    fn read_set_aside(&mut self) -> Result<(), StoreError> {
        for path in files(&unreadable_in(&self.directory))? {
            // Of the freed addresses nobody has one.
            let is_freed = stem(&path).starts_with(FREED_STEM);
            let bytes = if is_freed {
                Vec::new()
            } else {
                fs::read(&path).map_err(at(&path))?
            };
            let unreadable = Unreadable {
                addresses: file::addresses_in(&bytes),
                why: "it could not be read when the agent started before".into(),
                path: path.clone(),
            };
            self.unreadable.insert(stem(&path), unreadable);
        }
        Ok(())
    }

    fn read_attachments(&mut self) -> Result<(), StoreError> {
        for path in files(&attachments_in(&self.directory))? {
            if durable::is_temporary(&path) {
                durable::remove(&path).map_err(at(&path))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(at(&path))?;
            let read = file::read(&bytes).and_then(|(id, attachment)| {
                if stem(&path) != attachment.host_ifname {
                    return Err(format!("it belongs into {}.json", attachment.host_ifname));
                }
                Ok((id, attachment))
            });
            match read {
                Ok((id, attachment)) => {
                    self.attachments.insert(id, attachment);
                }
                Err(why) => self.set_aside(&path, &bytes, why)?,
            }
        }
        Ok(())
    }

    fn read_freed(&mut self) -> Result<(), StoreError> {
        let path = self.directory.join(FREED);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(at(&path))?,
        };
        match file::read_freed(&bytes) {
            Ok(freed) => {
                let in_use = self.in_use();
                self.freed = freed;
                self.freed.retain(|address| !in_use.contains(address));
                Ok(())
            }
            // Nobody has these addresses: none is to be kept from being given.
            Err(why) => self.set_aside(&path, &[], why),
        }
    }

    /// A file that was set aside under the same name before stays, and so do the addresses in it.
    fn set_aside(&mut self, path: &Path, bytes: &[u8], why: String) -> Result<(), StoreError> {
        let name = stem(path);
        let taken = (0..)
            .map(|number| {
                if number == 0 {
                    name.clone()
                } else {
                    format!("{name}.{number}")
                }
            })
            .find(|name| !self.unreadable.contains_key(name));
        let name = taken.unwrap_or(name);
        let aside = unreadable_in(&self.directory).join(format!("{name}.json"));
        durable::rename(path, &aside).map_err(at(path))?;
        let unreadable = Unreadable {
            path: aside,
            why,
            addresses: file::addresses_in(bytes),
        };
        self.unreadable.insert(name, unreadable);
        Ok(())
    }
}

const FREED: &str = "freed.json";
const FREED_STEM: &str = "freed";

fn overlap<'a>(attachment: &Attachment, mut others: impl Iterator<Item = &'a IpAddr>) -> Option<IpAddr> {
    others
        .find(|address| attachment.addresses.contains(address))
        .copied()
}

fn attachments_in(directory: &Path) -> PathBuf {
    directory.join("attachments")
}

fn unreadable_in(directory: &Path) -> PathBuf {
    directory.join("unreadable")
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            path: directory.into(),
        }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path, source }),
    }
}

/// Sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file of the store is about the interface of that name, readable or not.
pub(crate) fn is_record_of(path: &Path, host_ifname: &str) -> bool {
    !durable::is_temporary(path)
        && stem(path)
            .strip_prefix(host_ifname)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The file's name without `.json`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".json").unwrap_or(&name).to_owned()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

#[cfg(test)]
mod tests;
