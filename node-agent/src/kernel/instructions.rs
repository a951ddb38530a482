//! How much work each program is for the verifier, and how large it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Kernel;

/// The kernel's own figures of one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramSize {
    /// Instructions that the verifier looked at, over all paths; `None` before 5.16.
    pub verified: Option<u32>,
    /// Bytes of BPF; `None` where the kernel keeps them to itself (`bpf_jit_harden`, `kernel.kptr_restrict`).
    pub translated: Option<u32>,
    /// Bytes of machine code; 0 where it is interpreted.
    pub jited: u32,
}

impl Kernel {
    /// Of every program of the object.
    pub fn program_sizes(&self) -> Result<BTreeMap<String, ProgramSize>> {
        self.generation
            .ebpf
            .programs()
            .map(|(name, program)| {
                let info = program
                    .info()
                    .with_context(|| format!("asking about program {name}"))?;
                let size = ProgramSize {
                    verified: info.verified_instruction_count(),
                    translated: info.size_translated(),
                    jited: info.size_jitted(),
                };
                Ok((name.to_owned(), size))
            })
            .collect()
    }
}
