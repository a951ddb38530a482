//! Pinned links: creating, replacing the program in one step, and removing.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::hook::Attachment;
use super::object::program_fd;
use super::pin::Home;
use super::sys;

/// Where a new link goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Interface(u32),
    Cgroup(BorrowedFd<'a>),
}

/// Makes the link run this program: a link that is there gets it in one step, else one is created and pinned.
pub(super) fn attach(home: &Home, ebpf: &Ebpf, attachment: Attachment, target: Target<'_>) -> Result<()> {
    let program = program_fd(ebpf, attachment.hook.program())?;
    let pin = home.link(attachment);
    if let Some(link) = open(&pin)? {
        if is_alive(&link, attachment)? {
            return sys::link_update(link.as_fd(), program).with_context(|| format!("updating {attachment}"));
        }
        // The index or cgroup was given to another since.
        remove_pin(&pin)?;
    }
    let target = match target {
        Target::Interface(index) => index,
        Target::Cgroup(directory) => directory.as_raw_fd().cast_unsigned(),
    };
    let link = sys::link_create(program, target, attachment.hook.attach_type())
        .with_context(|| format!("attaching {attachment}"))?;
    sys::obj_pin(link.as_fd(), &pin).with_context(|| format!("pinning {attachment} at {}", pin.display()))
}

/// Makes every pinned link run these programs. Where one refuses, those that were switched go back.
pub(super) fn switch_all(home: &Home, ebpf: &Ebpf) -> Result<()> {
    let mut switched = Vec::new();
    for attachment in home.attachments()? {
        match switch(home, ebpf, attachment) {
            Ok(None) => {}
            Ok(Some(back)) => switched.push(back),
            Err(error) => {
                for back in switched {
                    back.go()?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Detaches and unpins; an attachment that is absent is no error.
pub(super) fn detach(home: &Home, attachment: Attachment) -> Result<()> {
    let pin = home.link(attachment);
    let Some(link) = open(&pin)? else { return Ok(()) };
    match sys::link_detach(link.as_fd()) {
        Ok(()) => {}
        // Its interface or cgroup is gone.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
        // Without BPF_LINK_DETACH (before 5.9) the last reference detaches.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error).with_context(|| format!("detaching {attachment}")),
    }
    remove_pin(&pin)
}

/// The way back of one link that was switched.
struct Back {
    attachment: Attachment,
    link: OwnedFd,
    program: OwnedFd,
}

impl Back {
    fn go(self) -> Result<()> {
        sys::link_update(self.link.as_fd(), self.program.as_fd())
            .with_context(|| format!("giving {} its former program back", self.attachment))
    }
}

/// `None` where the interface or cgroup is gone: there is nothing to switch.
fn switch(home: &Home, ebpf: &Ebpf, attachment: Attachment) -> Result<Option<Back>> {
    let Some(link) = open(&home.link(attachment))? else {
        return Ok(None);
    };
    if !is_alive(&link, attachment)? {
        return Ok(None);
    }
    let context = || format!("updating {attachment}");
    let former = sys::link_info(link.as_fd()).with_context(context)?.program_id;
    let former = sys::program_by_id(former).with_context(context)?;
    let program = program_fd(ebpf, attachment.hook.program())?;
    match sys::link_update(link.as_fd(), program) {
        Ok(()) => Ok(Some(Back {
            attachment,
            link,
            program: former,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}

fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    match sys::obj_get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("opening {}", pin.display())),
    }
}

fn is_alive(link: &OwnedFd, attachment: Attachment) -> Result<bool> {
    let info = sys::link_info(link.as_fd()).with_context(|| format!("asking about {attachment}"))?;
    let target = if attachment.hook.direction().is_some() {
        u64::from(info.ifindex())
    } else {
        info.cgroup_id()
    };
    Ok(target == attachment.target)
}

fn remove_pin(pin: &Path) -> Result<()> {
    fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))
}
