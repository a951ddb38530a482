//! The object file with the programs: what maps it has, and loading it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::ProgramArray;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use aya_obj::EbpfSectionKind;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use weir_abi::config::global;

use super::capacities::Capacities;
use super::probe::Abilities;
use super::raw_map::Shape;

/// The programs, as they were built with this agent.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir"));

/// Dies with the programs: its contents end with the packet.
const NOT_PINNED: &str = "scratch";

/// A program that others jump to.
struct Jump {
    map: &'static str,
    index: u32,
    program: &'static str,
}

const JUMPS: &[Jump] = &[
    Jump {
        map: "jump",
        index: 0,
        program: "fast",
    },
    Jump {
        map: "jump",
        index: 1,
        program: "slow",
    },
];

/// Lines of the verifier's log that go into an error. The last ones say what it refused.
const VERIFIER_LINES: usize = 30;

/// What the programs are loaded with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Globals {
    pub(super) abilities: Abilities,
    /// See [`NODE_NETNS`](global::NODE_NETNS).
    pub(super) node_netns: u64,
}

/// The maps that are pinned, as they will be created.
pub(super) fn shapes(object: &[u8], capacities: &Capacities) -> Result<BTreeMap<String, Shape>> {
    let parsed = aya_obj::Object::parse(object).context("parsing the object with the programs")?;
    let pinned = parsed.maps.into_iter().filter(|(name, map)| {
        name.as_str() != NOT_PINNED
            && matches!(
                map.section_kind(),
                EbpfSectionKind::Maps | EbpfSectionKind::BtfMaps
            )
    });
    Ok(pinned
        .map(|(name, map)| {
            let shape = Shape {
                kind: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                flags: map.map_flags(),
                max_entries: capacities
                    .of(&name)
                    .map_or(map.max_entries(), |capacity| capacity.entries),
            };
            (name, shape)
        })
        .collect())
}

/// Creates the maps whose pins do not exist, and has the verifier check every program. Nothing is attached.
pub(super) fn load(
    object: &[u8],
    globals: Globals,
    shapes: &BTreeMap<String, Shape>,
    pins: &BTreeMap<String, PathBuf>,
) -> Result<Ebpf> {
    lift_memory_limit();
    let mut loader = EbpfLoader::new();
    loader
        // No program reads kernel structures, so there is nothing to relocate.
        .btf(None)
        .override_global(global::CLOCK_SHIFT, &globals.abilities.clock_shift, true)
        .override_global(global::NODE_NETNS, &globals.node_netns, true);
    for (name, shape) in shapes {
        loader.map_max_entries(name, shape.max_entries);
    }
    for (name, pin) in pins {
        loader.map_pin_path(name, pin.as_path());
    }
    let mut ebpf = loader.load(object).context("creating the maps of the programs")?;
    let programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    for (name, program) in programs {
        verify(program).map_err(|error| short(name, error))?;
    }
    require_jumps(shapes)?;
    for jump in JUMPS {
        set_jump(&mut ebpf, jump)?;
    }
    Ok(ebpf)
}

/// A jump that leads nowhere drops the packet, so every place must be known.
fn require_jumps(shapes: &BTreeMap<String, Shape>) -> Result<()> {
    for (name, shape) in shapes
        .iter()
        .filter(|(name, _)| JUMPS.iter().any(|jump| jump.map == *name))
    {
        let known: BTreeSet<u32> = JUMPS
            .iter()
            .filter(|jump| jump.map == name)
            .map(|jump| jump.index)
            .collect();
        if known != (0..shape.max_entries).collect() {
            bail!(
                "map {name} has {} places, and programs are known for {known:?}",
                shape.max_entries
            );
        }
    }
    Ok(())
}

/// Puts the program where others jump to.
fn set_jump(ebpf: &mut Ebpf, jump: &Jump) -> Result<()> {
    let context = || format!("making {} reachable by map {}", jump.program, jump.map);
    let program = ebpf
        .program(jump.program)
        .ok_or_else(|| anyhow!("the object has no such program"));
    let target = program
        .and_then(|program| Ok(program.fd()?.try_clone()?))
        .with_context(context)?;
    let map = ebpf
        .map_mut(jump.map)
        .ok_or_else(|| anyhow!("the object has no such map"))
        .with_context(context)?;
    ProgramArray::try_from(map)
        .and_then(|mut array| array.set(jump.index, &target, 0))
        .with_context(context)
}

pub(super) fn program_fd<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    let program = ebpf
        .program(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?;
    Ok(program.fd().with_context(|| format!("program {name}"))?.as_fd())
}

fn verify(program: &mut Program) -> Result<(), ProgramError> {
    if let Ok(program) = <&mut aya::programs::SchedClassifier>::try_from(&mut *program) {
        return program.load();
    }
    <&mut aya::programs::CgroupSockAddr>::try_from(program)?.load()
}

fn short(name: &str, error: ProgramError) -> anyhow::Error {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = &error
    {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n");
        return anyhow!("the kernel refuses program {name}: {io_error}\n{end}");
    }
    anyhow::Error::new(error).context(format!("loading program {name}"))
}

/// Before 5.11 maps count against the limit on locked memory. Where it cannot be lifted, creating a map says so.
fn lift_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// # Errors
///
/// If the object lacks a map that the agent needs.
pub(super) fn require_maps(shapes: &BTreeMap<String, Shape>, names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !shapes.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("the object lacks the maps {}", missing.join(", "))
}
