//! What this kernel can do, found out by trying: distributions backport, and configurations leave out.

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_attach_type;
use nix::time::{ClockId, clock_getres};

use super::sys;

/// The interface index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// What differs between kernels from 5.10 on and matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// tcx links (6.6); without them, filters on a clsact qdisc.
    pub tcx: bool,
    /// See [`CLOCK_SHIFT`](weir_abi::config::global::CLOCK_SHIFT).
    pub clock_shift: u32,
}

impl Abilities {
    /// # Errors
    ///
    /// If the kernel does not let us load programs at all.
    pub fn of_this_kernel() -> Result<Self> {
        Ok(Self {
            tcx: has_tcx(),
            clock_shift: clock_shift()?,
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

/// From the resolution of the coarse clocks, which is the length of a tick.
fn clock_shift() -> Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context("asking for the length of a tick")?;
    let nanoseconds = tick.tv_sec() * 1_000_000_000 + tick.tv_nsec();
    let ticks_a_second = 1_000_000_000 / nanoseconds.clamp(1, 1_000_000_000);
    Ok(nearest_power_of_two(u64::try_from(ticks_a_second)?))
}

/// Its exponent. Nearest by ratio: between two powers, their geometric mean divides.
fn nearest_power_of_two(number: u64) -> u32 {
    let below = number.max(1).ilog2();
    if number * number > 1 << (2 * below + 1) {
        below + 1
    } else {
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_about_a_second_at_every_tick_rate_that_linux_has() {
        for (ticks, shift) in [
            (24, 5),
            (100, 7),
            (128, 7),
            (250, 8),
            (256, 8),
            (300, 8),
            (1000, 10),
            (1024, 10),
        ] {
            assert_eq!(nearest_power_of_two(ticks), shift, "{ticks} ticks a second");
            let seconds = f64::from(1 << shift) / f64::from(u32::try_from(ticks).expect("small"));
            assert!((0.7..1.42).contains(&seconds));
        }
    }
}
