//! Running a program on a packet that never was on a wire (`BPF_PROG_TEST_RUN`).

use std::io;
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};

use super::Kernel;
use super::object::program_fd;
use super::sys;

/// Room for what a program may put in front of the packet.
const HEADROOM: usize = 256;

/// Offset of `ifindex` in `struct __sk_buff`.
const IFINDEX_OFFSET: usize = 40;

/// A packet and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestPacket<'a> {
    /// From the Ethernet header on; at least 14 bytes.
    pub bytes: &'a [u8],
    /// The interface that the program sees it on. The kernel takes 0 and 1 for the loopback interface; any other
    /// must exist.
    pub ifindex: u32,
    /// How often to run. Every run after the first sees what the run before left of the packet.
    pub repeat: u32,
}

/// What the last run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// A `TC_ACT_*` number.
    pub return_value: i32,
    pub packet: Vec<u8>,
    /// Mean of the runs.
    pub nanos_per_run: u32,
}

impl Kernel {
    /// Runs a classifier of ours, with everything that it does to the maps.
    pub fn test_run(&self, program: &str, packet: &TestPacket<'_>) -> Result<TestOutcome> {
        test_run(program_fd(&self.generation.ebpf, program)?, packet)
            .with_context(|| format!("running {program} on a test packet"))
    }
}

/// Runs any classifier.
pub fn test_run(program: BorrowedFd<'_>, packet: &TestPacket<'_>) -> io::Result<TestOutcome> {
    let mut output = vec![0; packet.bytes.len() + HEADROOM];
    let answer = sys::prog_test_run(
        program,
        packet.bytes,
        &mut output,
        &context(packet.ifindex),
        packet.repeat,
    )?;
    output.truncate(answer.filled);
    Ok(TestOutcome {
        return_value: answer.return_value.cast_signed(),
        packet: output,
        nanos_per_run: answer.nanos_per_run,
    })
}

/// The head of a `struct __sk_buff`, all zero but the interface.
fn context(ifindex: u32) -> [u8; IFINDEX_OFFSET + 4] {
    let mut context = [0; IFINDEX_OFFSET + 4];
    context[IFINDEX_OFFSET..].copy_from_slice(&ifindex.to_ne_bytes());
    context
}
