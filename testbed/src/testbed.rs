//! Everything that one test makes in the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::interrupt::wait_if_interrupted;
use crate::owner::Owner;
use crate::place::{Place, ip};
use crate::remains::{self, BPFFS, PREFIX, RUN};

/// Tells the testbeds of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Owns namespaces, control groups, a BPF file system and a directory, and whatever runs in them.
#[derive(Debug)]
pub struct Testbed {
    id: String,
    directory: PathBuf,
    cgroup: PathBuf,
    removed: bool,
}

impl Testbed {
    /// Makes an empty testbed, and removes what dead ones left. `test` is for people: 1 to 24 letters,
    /// digits and `-`.
    pub fn new(test: &str) -> Result<Testbed> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if test.is_empty() || test.len() > 24 || !test.chars().all(plain) {
            bail!("{test:?} cannot be part of a testbed's name");
        }
        if fs::metadata("/proc/self")?.uid() != 0 {
            bail!(
                "a testbed is made of network namespaces, which takes root: run it as root (`make test` does)"
            );
        }
        remains::sweep().context("remove what earlier runs left")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{test}-{}-{number}", std::process::id());
        let directory = Path::new(RUN).join(&id);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        Owner::this()?.record(&directory)?;
        let cgroup = remains::cgroup_of(&directory)?;
        let testbed = Testbed {
            id,
            directory,
            cgroup,
            removed: false,
        };
        testbed.furnish()?;
        Ok(testbed)
    }

    fn furnish(&self) -> Result<()> {
        make_directory(&self.cgroup)?;
        let point = self.bpffs();
        make_directory(&point)?;
        let nothing: Option<&str> = None;
        mount(Some("bpf"), &point, Some("bpf"), MsFlags::empty(), nothing)
            .with_context(|| format!("mount a BPF file system at {}", point.display()))
    }

    /// Begins the names of everything that is made here.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Files of the test go here.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The testbed's own BPF file system. Pins in it hold until the testbed is removed.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join(BPFFS)
    }

    /// A directory below [`Testbed::directory`], made if it is not there.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(directory)
    }

    /// A new place, with `lo` up: a node, or a host of its own.
    pub fn host(&self, role: &str) -> Result<Place> {
        let place = self.place(format!("{}-{role}", self.id), self.cgroup.join(role))?;
        place.ip("link set lo up")?;
        Ok(place)
    }

    /// A new place for a pod of a node, with nothing in it. Its control group is below the node's.
    pub fn pod(&self, node: &Place, name: &str) -> Result<Place> {
        self.pod_in(node, name, &format!("{}-{name}", self.id))
    }

    /// As [`Testbed::pod`], with a namespace of this name; for manifests that name it.
    pub fn pod_in(&self, node: &Place, name: &str, netns: &str) -> Result<Place> {
        self.place(netns.into(), node.cgroup().join(name))
    }

    fn place(&self, netns: String, cgroup: PathBuf) -> Result<Place> {
        if Path::new(remains::NETNS).join(&netns).exists() {
            bail!("a network namespace {netns} is there already");
        }
        make_directory(&cgroup)?;
        remains::record_namespace(&self.directory, &netns)?;
        ip(&format!("netns add {netns}"))?;
        Ok(Place::new(netns, cgroup))
    }

    /// Removes everything, and says so when something does not go.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        remains::remove(&self.directory)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        wait_if_interrupted();
        if let Err(error) = remains::remove(&self.directory) {
            eprintln!("{}: clean up: {error:#}", self.id);
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| path.display().to_string())
}
