//! Attaching to pods, uplinks and cgroups, and detaching what is not wanted any more.
//!
//! tcx programs of others keep their places: ours go behind them (the kernel's default order). One in front that
//! ends the chain with a verdict of its own keeps ours from seeing the packet.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Kernel;
use super::clsact;
use super::hook::{Attachment, Hook};
use super::links::{self, Target};
use super::pin::{Home, Lock};

/// How programs get onto interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachBy {
    /// tcx links where the kernel has them, else clsact.
    #[default]
    Best,
    /// Filters on clsact, whatever the kernel has.
    Clsact,
}

/// What is to stay attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Interface indices of the host sides of the pods.
    pub pods: BTreeSet<u32>,
    /// Interface indices.
    pub uplinks: BTreeSet<u32>,
    /// Directories of a cgroup2 file system.
    pub cgroups: BTreeSet<PathBuf>,
}

impl Kernel {
    /// Both sides of a pod's host-side interface. Does nothing twice.
    pub fn attach_pod(&mut self, ifindex: u32) -> Result<()> {
        self.attach_interface(Hook::POD, ifindex)
    }

    pub fn attach_uplink(&mut self, ifindex: u32) -> Result<()> {
        self.attach_interface(Hook::UPLINK, ifindex)
    }

    /// All socket hooks, for the processes of this cgroup and those below it. Does nothing twice.
    pub fn attach_cgroup(&mut self, path: &Path) -> Result<()> {
        let directory = File::open(path).with_context(|| format!("opening cgroup {}", path.display()))?;
        let target = directory
            .metadata()
            .with_context(|| format!("reading cgroup {}", path.display()))?
            .ino();
        for hook in Hook::of_cgroups() {
            let attachment = Attachment { hook, target };
            links::attach(
                &self.home,
                &self.generation.ebpf,
                attachment,
                Target::Cgroup(directory.as_fd()),
            )
            .with_context(|| format!("cgroup {}", path.display()))?;
        }
        Ok(())
    }

    /// Does nothing where nothing is attached, or the interface is gone.
    pub fn detach_pod(&mut self, ifindex: u32) -> Result<()> {
        self.detach_interface(Hook::POD, ifindex)
    }

    pub fn detach_uplink(&mut self, ifindex: u32) -> Result<()> {
        self.detach_interface(Hook::UPLINK, ifindex)
    }

    /// What is attached now, to interfaces that may be gone.
    pub fn attachments(&self) -> Result<BTreeSet<Attachment>> {
        Ok(self.home.attachments()?.union(&self.clsact).copied().collect())
    }

    /// Detaches everything that is not wanted. Attaches nothing. To be called when it is known what is wanted, and
    /// not before.
    pub fn retain_links(&mut self, wanted: &Wanted) -> Result<()> {
        let keep = attachments_of(wanted)?;
        for attachment in self.attachments()?.difference(&keep) {
            self.detach(*attachment)?;
        }
        Ok(())
    }

    /// Gives every program that is attached its successor of this generation.
    pub(super) fn switch(&mut self) -> Result<()> {
        links::switch_all(&self.home, &self.generation.ebpf)?;
        self.clsact.clear();
        for (index, name) in clsact::interfaces()? {
            for hook in Hook::of_interfaces() {
                if clsact::replace(&mut self.generation.ebpf, hook, &name)? {
                    self.clsact.insert(Attachment {
                        hook,
                        target: u64::from(index),
                    });
                }
            }
        }
        Ok(())
    }

    fn attach_interface(&mut self, hooks: &[Hook], ifindex: u32) -> Result<()> {
        for hook in hooks {
            let attachment = Attachment {
                hook: *hook,
                target: u64::from(ifindex),
            };
            if self.by_tcx() {
                let target = Target::Interface(ifindex);
                links::attach(&self.home, &self.generation.ebpf, attachment, target)?;
                // The other way only after: a packet may meet both, but never neither.
                self.detach_filter(attachment)?;
            } else {
                let name = interface_name(ifindex)?;
                clsact::attach(&mut self.generation.ebpf, *hook, &name)?;
                self.clsact.insert(attachment);
                links::detach(&self.home, attachment)?;
            }
        }
        Ok(())
    }

    fn detach_interface(&mut self, hooks: &[Hook], ifindex: u32) -> Result<()> {
        hooks.iter().try_for_each(|hook| {
            self.detach(Attachment {
                hook: *hook,
                target: u64::from(ifindex),
            })
        })
    }

    fn detach(&mut self, attachment: Attachment) -> Result<()> {
        self.detach_filter(attachment)?;
        links::detach(&self.home, attachment)
    }

    fn detach_filter(&mut self, attachment: Attachment) -> Result<()> {
        if !self.clsact.contains(&attachment) {
            return Ok(());
        }
        if let Some(name) = clsact::interfaces()?
            .iter()
            .find_map(|(index, name)| (u64::from(*index) == attachment.target).then_some(name))
        {
            clsact::detach(attachment.hook, name)?;
        }
        self.clsact.remove(&attachment);
        Ok(())
    }

    fn by_tcx(&self) -> bool {
        match self.config.attach_by {
            AttachBy::Best => self.abilities.tcx,
            AttachBy::Clsact => false,
        }
    }
}

/// Uninstalls: detaches everything of ours from the interfaces of this network namespace and from cgroups, removes
/// every pin and the directory, unmounts the bpffs if an agent had mounted it, and removes the lock in the state
/// directory.
///
/// An empty clsact qdisc stays where there was a filter of ours.
///
/// # Errors
///
/// If an agent runs that uses the same state directory.
pub fn remove_all(bpffs: &Path, state: &Path) -> Result<()> {
    let lock = Lock::take(state)?;
    let home = Home::find(bpffs);
    for attachment in home.attachments()? {
        links::detach(&home, attachment)?;
    }
    for name in clsact::interfaces()?.values() {
        for hook in Hook::of_interfaces() {
            clsact::detach(hook, name)?;
        }
    }
    home.remove()?;
    lock.remove()
}

fn attachments_of(wanted: &Wanted) -> Result<BTreeSet<Attachment>> {
    let of = |hooks: &'static [Hook], indices: &BTreeSet<u32>| -> Vec<Attachment> {
        indices
            .iter()
            .flat_map(|index| {
                hooks.iter().map(|hook| Attachment {
                    hook: *hook,
                    target: u64::from(*index),
                })
            })
            .collect()
    };
    let mut attachments: BTreeSet<Attachment> = of(Hook::POD, &wanted.pods)
        .into_iter()
        .chain(of(Hook::UPLINK, &wanted.uplinks))
        .collect();
    for path in &wanted.cgroups {
        let target = path
            .metadata()
            .with_context(|| format!("reading cgroup {}", path.display()))?
            .ino();
        attachments.extend(Hook::of_cgroups().map(|hook| Attachment { hook, target }));
    }
    Ok(attachments)
}

fn interface_name(ifindex: u32) -> Result<String> {
    clsact::interfaces()?
        .remove(&ifindex)
        .with_context(|| format!("there is no interface with index {ifindex}"))
}
