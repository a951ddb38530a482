//! Filters on the clsact qdisc, for kernels without tcx.
//!
//! They are not pinned: a filter stays until it or its interface is deleted. That one is ours shows in its handle,
//! which also says for which hook it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use aya::Ebpf;
use aya::programs::links::Link as _;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use nix::net::if_::if_nameindex;

use super::hook::Hook;

/// Lower numbers run first, and a filter that lets a packet pass keeps those behind it from seeing it.
const PRIORITY: u16 = 7;

/// "We" in the upper half; the hook in the lower.
const HANDLE: u16 = 0x5765;

/// Interfaces of this thread's network namespace.
pub(super) fn interfaces() -> Result<BTreeMap<u32, String>> {
    let list = if_nameindex().context("listing the network interfaces")?;
    Ok(list
        .iter()
        .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
        .collect())
}

/// Attaches the hook's program, or replaces the one that is there in place.
pub(super) fn attach(ebpf: &mut Ebpf, hook: Hook, interface: &str) -> Result<()> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(error) if os_error(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("adding a clsact qdisc to {interface}")),
    }
    if replace(ebpf, hook, interface)? {
        return Ok(());
    }
    let program = classifier(ebpf, hook)?;
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        handle: handle(hook),
        classid: None,
    });
    let link = program
        .attach_with_options(interface, direction(hook)?, options)
        .and_then(|id| program.take_link(id))
        .with_context(|| {
            format!(
                "adding the filter {} with priority {PRIORITY} to {interface}",
                hook.program()
            )
        })?;
    keep(link);
    Ok(())
}

/// Replaces the program of a filter of ours in place; `false` where there is none.
pub(super) fn replace(ebpf: &mut Ebpf, hook: Hook, interface: &str) -> Result<bool> {
    let Some(link) = filter(hook, interface)? else {
        return Ok(false);
    };
    let program = classifier(ebpf, hook)?;
    match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
        Ok(link) => {
            keep(link);
            Ok(true)
        }
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("replacing the filter {} on {interface}", hook.program()))
        }
    }
}

/// Deletes a filter of ours; `false` where there is none. The qdisc stays, since others may use it.
pub(super) fn detach(hook: Hook, interface: &str) -> Result<bool> {
    let Some(link) = filter(hook, interface)? else {
        return Ok(false);
    };
    match link.detach() {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("deleting the filter {} on {interface}", hook.program()))
        }
    }
}

/// The filter of ours, whether it is there or not; `None` where the interface is gone.
fn filter(hook: Hook, interface: &str) -> Result<Option<SchedClassifierLink>> {
    match SchedClassifierLink::attached(interface, direction(hook)?, PRIORITY, handle(hook), None) {
        Ok(link) => Ok(Some(link)),
        Err(error) if [Some(libc::ENODEV), Some(libc::ENXIO)].contains(&error.raw_os_error()) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("looking for interface {interface}")),
    }
}

/// A link that is dropped detaches; this one outlives the agent.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

fn classifier(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier> {
    let name = hook.program();
    ebpf.program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("program {name}"))
}

fn direction(hook: Hook) -> Result<TcAttachType> {
    hook.direction()
        .ok_or_else(|| anyhow!("{} is no hook of an interface", hook.program()))
}

fn handle(hook: Hook) -> TcHandle {
    // Filters outlive agents, so the numbers are part of the contract between versions.
    let minor = match hook {
        Hook::FromPod => 1,
        Hook::ToPod => 2,
        Hook::FromWire => 3,
        Hook::Connect4
        | Hook::Connect6
        | Hook::Sendmsg4
        | Hook::Sendmsg6
        | Hook::Recvmsg4
        | Hook::Recvmsg6
        | Hook::Getpeername4
        | Hook::Getpeername6 => 0,
    };
    TcHandle::new(HANDLE, minor)
}

/// No such filter (`ENOENT`), no such qdisc (`EINVAL`), or no such interface (`ENODEV`).
fn is_absent(error: &ProgramError) -> bool {
    let code = if let ProgramError::TcError(error) = error {
        os_error(error)
    } else if let ProgramError::NetlinkError(error) = error {
        error.raw_os_error()
    } else {
        None
    };
    code.is_some_and(|code| [libc::ENOENT, libc::EINVAL, libc::ENODEV].contains(&code))
}

fn os_error(error: &TcError) -> Option<i32> {
    if let TcError::NetlinkError(error) = error {
        error.raw_os_error()
    } else {
        None
    }
}
