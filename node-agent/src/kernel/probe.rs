//! What this kernel can do, found out by trying: distributions backport, and configurations leave out.

use anyhow::{Context as _, Result};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya_obj::generated::bpf_attach_type;

use super::sys;

/// The interface index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// What differs between kernels from 5.10 on and matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// tcx links (6.6); without them, filters on a clsact qdisc.
    pub tcx: bool,
    /// `bpf_ktime_get_coarse_ns` (5.11).
    pub coarse_clock: bool,
}

impl Abilities {
    /// # Errors
    ///
    /// If the kernel does not let us load programs at all.
    pub fn of_this_kernel() -> Result<Self> {
        Ok(Self {
            tcx: has_tcx(),
            coarse_clock: has_helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns)?,
        })
    }
}

/// A kernel that does not know the attach type says `EINVAL`, before it looks for the interface.
fn has_tcx() -> bool {
    match sys::query_kind(LOOPBACK, bpf_attach_type::BPF_TCX_INGRESS) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}

fn has_helper(helper: BpfHelper) -> Result<bool> {
    is_helper_supported(ProgramType::SchedClassifier, helper).with_context(|| {
        format!("probing for {helper:?}; loading programs needs root, or CAP_BPF and CAP_NET_ADMIN")
    })
}
