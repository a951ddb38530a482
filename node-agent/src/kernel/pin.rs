//! Where our maps and links live between two agents: a directory of a bpffs.
//!
//! ```text
//! <bpffs>/v1/maps/<name>       maps, by version of their layouts
//! <bpffs>/v1/next0/<name>      maps that are to replace them; a directory for every attempt
//! <bpffs>/links/<hook-target>  links, whatever the version of their programs
//! ```
//!
//! No name has a dot: bpffs refuses it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use weir_abi::ABI_VERSION;

use super::hook::Attachment;
use crate::mountinfo::{mount_of, mounts};
use crate::node_bpffs::{MOUNT_SOURCE, mount_bpffs};

/// Where every distribution mounts a bpffs, and where no directory can be made without one.
const USUAL_MOUNT: &str = "/sys/fs/bpf";

const STAGE_PREFIX: &str = "next";

/// Held as long as one agent is responsible for the pins.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child between its fork and its exec holds the file as well.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot give up the lock on the state directory");
        }
    }
}

impl Lock {
    pub(super) fn take(state: &Path) -> Result<Self> {
        fs::create_dir_all(state)
            .with_context(|| format!("making the state directory {}", state.display()))?;
        let path = state.join("agent.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) if !is_at(&file, &path)? => bail!("{} was removed meanwhile", path.display()),
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => {
                bail!("another agent runs: it holds the lock on {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }

    /// Removes the file, and gives up the lock.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

/// Whoever held the lock before may have removed the file, and the next one makes another.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let held = file
        .metadata()
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())))
}

/// Our directory on a bpffs.
#[derive(Debug, Clone)]
pub(super) struct Home {
    root: PathBuf,
}

/// A directory of maps that are to replace those in use.
///
/// An agent that dies may leave one whose programs are attached already. Its pins must stay until these programs are
/// replaced: the kernel empties a program array that nobody but programs holds.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
}

impl Stage {
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn names(&self) -> Result<BTreeSet<String>> {
        names(&self.dir)
    }

    pub(super) fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))
    }
}

impl Home {
    /// Makes the directories, and mounts a bpffs where there is none.
    pub(super) fn open(root: &Path) -> Result<Self> {
        provide_bpffs(root)?;
        let home = Self {
            root: root.to_owned(),
        };
        for dir in [home.maps(), home.links()] {
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(home)
    }

    /// As it is, if it is; makes nothing.
    pub(super) fn find(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn link(&self, attachment: Attachment) -> PathBuf {
        self.links().join(attachment.to_string())
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn version(&self) -> PathBuf {
        self.root.join(version_name())
    }

    /// The links that are pinned. A name that is not one of ours is an error: the directory is ours alone.
    pub(super) fn attachments(&self) -> Result<BTreeSet<Attachment>> {
        names(&self.links())?
            .iter()
            .map(|name| {
                name.parse()
                    .map_err(anyhow::Error::msg)
                    .with_context(|| format!("reading {}", self.links().display()))
            })
            .collect()
    }

    /// A new directory for maps to come.
    pub(super) fn stage(&self) -> Result<Stage> {
        let taken = names(&self.version())?;
        let free = (0..)
            .map(stage_name)
            .find(|name| !taken.contains(name))
            .unwrap_or_default();
        let dir = self.version().join(free);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Stage { dir })
    }

    /// What agents left that died on the way.
    pub(super) fn left_over(&self) -> Result<Vec<Stage>> {
        let names = names(&self.version())?;
        let stages = names.iter().filter(|name| name.starts_with(STAGE_PREFIX));
        Ok(stages
            .map(|name| Stage {
                dir: self.version().join(name),
            })
            .collect())
    }

    /// Puts a map in the place of the one that it replaces, in one step.
    pub(super) fn promote(&self, stage: &Stage, name: &str) -> Result<()> {
        let (from, to) = (stage.map(name), self.map(name));
        fs::rename(&from, &to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))
    }

    /// Removes maps of other versions. Only when no program of theirs runs any more.
    pub(super) fn remove_other_versions(&self) -> Result<()> {
        for name in names(&self.root)? {
            if name.starts_with('v') && name != version_name() {
                let path = self.root.join(name);
                fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Removes every pin, our directory, and the bpffs if we mounted it.
    pub(super) fn remove(&self) -> Result<()> {
        if !exists(&self.root)? {
            return Ok(());
        }
        if !is_bpffs(&self.root)? {
            tracing::info!(path = %self.root.display(), "is on no bpffs, so nothing in it is ours");
            return Ok(());
        }
        if !is_mount_root(&self.root)? {
            fs::remove_dir_all(&self.root).with_context(|| format!("removing {}", self.root.display()))?;
        } else {
            for name in names(&self.root)? {
                if name == "links" || is_version(&name) {
                    let path = self.root.join(name);
                    fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
                }
            }
        }
        let mount_point = own_mount(&self.root)?;
        if let Some(mount_point) = mount_point
            && names(&mount_point)?.iter().all(|name| is_of_the_kernel(name))
        {
            umount2(&mount_point, MntFlags::empty())
                .with_context(|| format!("unmounting {}", mount_point.display()))?;
            tracing::info!(path = %mount_point.display(), "unmounted the bpffs that an agent had mounted");
        }
        Ok(())
    }
}

/// Names in a directory; none if it does not exist.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    entries
        .map(|entry| {
            let name = entry
                .with_context(|| format!("reading {}", dir.display()))?
                .file_name();
            Ok(name.to_string_lossy().into_owned())
        })
        .collect()
}

fn stage_name(attempt: u32) -> String {
    format!("{STAGE_PREFIX}{attempt}")
}

fn version_name() -> String {
    format!("v{ABI_VERSION}")
}

/// Some kernels put `maps.debug` and `progs.debug` into every bpffs. A name with a dot is one that nobody else can make.
fn is_of_the_kernel(name: &str) -> bool {
    name.contains('.')
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v')
        .is_some_and(|digits| digits.parse::<u32>().is_ok())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .with_context(|| format!("looking for {}", path.display()))
}

fn provide_bpffs(root: &Path) -> Result<()> {
    if let Err(error) = fs::create_dir_all(root) {
        // sysfs has the directory, and lets nobody make another one in it.
        if !root.starts_with(USUAL_MOUNT) || is_bpffs(Path::new(USUAL_MOUNT)).unwrap_or(true) {
            return Err(error).with_context(|| format!("making {}", root.display()));
        }
        mount_bpffs(Path::new(USUAL_MOUNT))?;
        fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    }
    if !is_bpffs(root)? {
        mount_bpffs(root)?;
    }
    Ok(())
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let stat = statfs(path).with_context(|| format!("asking for the file system of {}", path.display()))?;
    Ok(stat.filesystem_type() == BPF_FS_MAGIC)
}

fn is_mount_root(path: &Path) -> Result<bool> {
    Ok(mounts()?.iter().any(|mount| mount.point == path))
}

/// The bpffs of ours that the path is on.
fn own_mount(path: &Path) -> Result<Option<PathBuf>> {
    let mounts = mounts()?;
    let of_path = mount_of(&mounts, path);
    Ok(of_path
        .filter(|mount| mount.kind == "bpf" && mount.source == MOUNT_SOURCE)
        .map(|mount| mount.point.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_a_version() {
        assert!(is_version("v1"));
        assert!(is_version("v12"));
        assert!(!is_version("v"));
        assert!(!is_version("var"));
        assert!(!is_version("links"));
    }
}
