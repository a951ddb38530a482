//! One set of loaded programs with its maps: made beside the one that runs, then put in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;

use super::capacities::Capacities;
use super::copy::{Copied, Counts, copy_all, copy_missing};
use super::fate::Fate;
use super::object::{self, Globals};
use super::pin::{Home, Stage};
use super::raw_map::{RawMap, Shape};

/// Hashes that the programs write. What they put into the old one between its copy and the switch is fetched later.
const WRITTEN_BY_PROGRAMS: &[&str] = &["flows4", "flows6", "spill4", "spill6", "fragments", "sockets"];

/// Losing an entry of these costs a new decision at the next packet, so a table may become too small for all.
const MAY_LOSE: &[&str] = &["flows4", "flows6"];

/// Maps that the agent itself uses.
const NEEDED: &[&str] = &[
    "flows4",
    "flows6",
    "workloads",
    "addresses",
    "cidrs",
    "policy",
    "ports",
    "services",
    "backends",
    "numbers",
    "non_masquerade",
    "masquerade",
    "control",
    "overflow",
    "counters",
    "rule_counts",
    "log_budget",
    "events",
];

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) ebpf: Ebpf,
    pub(super) maps: BTreeMap<String, RawMap>,
    fates: BTreeMap<String, Fate>,
    predecessors: Vec<Predecessor>,
    /// Where the new maps are pinned until they take their places.
    stage: Stage,
    /// What agents left that died on the way. Links may run programs on it.
    left_over: Vec<Stage>,
}

/// A map whose contents belong into the new one of the same name.
#[derive(Debug)]
struct Predecessor {
    name: String,
    map: RawMap,
    /// Of per-CPU counters: what they were when they were copied.
    counts: Option<Counts>,
}

impl Generation {
    /// Loads the programs and brings their maps up to what is pinned. What runs is not touched, and goes on alone if
    /// this fails.
    pub(super) fn prepare(
        home: &Home,
        object: &[u8],
        globals: Globals,
        capacities: &Capacities,
    ) -> Result<Self> {
        let left_over = home.left_over()?;
        let stage = home.stage()?;
        match load(home, &stage, object, globals, capacities) {
            Ok(loaded) => Self::with(loaded, stage, left_over),
            Err(error) => {
                stage.remove()?;
                Err(error)
            }
        }
    }

    fn with(loaded: Loaded, stage: Stage, left_over: Vec<Stage>) -> Result<Self> {
        let Loaded {
            ebpf,
            maps,
            fates,
            mut predecessors,
        } = loaded;
        predecessors.extend(left_over_flows(&left_over, &maps)?);
        Ok(Self {
            ebpf,
            maps,
            fates,
            predecessors,
            stage,
            left_over,
        })
    }

    /// Whether every map is the pinned one.
    pub(super) fn changes_no_map(home: &Home, object: &[u8], capacities: &Capacities) -> Result<bool> {
        let fates = fates(home, &object::shapes(object, capacities)?, capacities)?;
        Ok(fates.values().all(|fate| fate.is_settled()))
    }

    /// Maps whose former contents could not be used.
    pub(super) fn replaced(&self) -> Vec<&str> {
        self.fates
            .iter()
            .filter(|(_, fate)| **fate == Fate::Replace)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// To be called when no program runs with the old maps any more: fetches what was written to them last, and
    /// gives the new ones their names.
    pub(super) fn finish(&mut self, home: &Home) -> Result<()> {
        for predecessor in &self.predecessors {
            fetch_last(predecessor, &self.maps[&predecessor.name])?;
        }
        self.predecessors.clear();
        for (name, fate) in &self.fates {
            if fate.is_new() {
                home.promote(&self.stage, name)?;
            }
        }
        self.stage.remove()?;
        self.left_over.drain(..).try_for_each(|stage| stage.remove())
    }

    /// Instead of [`finish`](Self::finish), when the programs could not be put in place.
    pub(super) fn abandon(&self) -> Result<()> {
        self.stage.remove()
    }
}

/// What comes from loading; a [`Generation`] but for its surroundings.
struct Loaded {
    ebpf: Ebpf,
    maps: BTreeMap<String, RawMap>,
    fates: BTreeMap<String, Fate>,
    predecessors: Vec<Predecessor>,
}

fn load(
    home: &Home,
    stage: &Stage,
    object: &[u8],
    globals: Globals,
    capacities: &Capacities,
) -> Result<Loaded> {
    let mut shapes = object::shapes(object, capacities)?;
    object::require_maps(&shapes, NEEDED)?;
    let fates = fates(home, &shapes, capacities)?;
    for (name, shape) in &mut shapes {
        // A larger map that is kept must not be contradicted by what the loader is told.
        if fates[name] == Fate::Reuse {
            shape.max_entries = Shape::of_pin(&home.map(name))?.max_entries;
        }
    }
    let pins: BTreeMap<String, PathBuf> = fates
        .iter()
        .map(|(name, fate)| {
            (
                name.clone(),
                if fate.is_new() {
                    stage.map(name)
                } else {
                    home.map(name)
                },
            )
        })
        .collect();
    let ebpf = object::load(object, globals, &shapes, &pins)?;
    let maps: BTreeMap<String, RawMap> = pins
        .iter()
        .map(|(name, pin)| Ok((name.clone(), open(name, pin)?)))
        .collect::<Result<_>>()?;
    let mut predecessors = Vec::new();
    for (name, fate) in &fates {
        if *fate == Fate::Copy {
            predecessors.push(carry_over(home, name, &maps[name])?);
        }
    }
    Ok(Loaded {
        ebpf,
        maps,
        fates,
        predecessors,
    })
}

/// Flow tables that were about to be put in place when an agent died: links may run on them.
fn left_over_flows(left_over: &[Stage], maps: &BTreeMap<String, RawMap>) -> Result<Vec<Predecessor>> {
    let mut predecessors = Vec::new();
    for stage in left_over {
        let names = stage.names()?;
        for name in WRITTEN_BY_PROGRAMS.iter().filter(|name| names.contains(**name)) {
            let map = open(name, &stage.map(name))?;
            let same_layout = maps.get(*name).is_some_and(|new| {
                (new.shape.key_size, new.shape.value_size) == (map.shape.key_size, map.shape.value_size)
            });
            if same_layout {
                predecessors.push(Predecessor {
                    name: (*name).to_owned(),
                    map,
                    counts: None,
                });
            }
        }
    }
    Ok(predecessors)
}

fn fates(
    home: &Home,
    shapes: &BTreeMap<String, Shape>,
    capacities: &Capacities,
) -> Result<BTreeMap<String, Fate>> {
    shapes
        .iter()
        .map(|(name, wanted)| {
            if wanted.max_entries == 0 {
                bail!("map {name} would have no entry");
            }
            let pin = home.map(name);
            let pinned = match pin.try_exists() {
                Ok(false) => None,
                Ok(true) => Some(Shape::of_pin(&pin).with_context(|| format!("reading {}", pin.display()))?),
                Err(error) => return Err(error).with_context(|| format!("looking for {}", pin.display())),
            };
            Ok((
                name.clone(),
                Fate::of(wanted, capacities.of(name), pinned.as_ref()),
            ))
        })
        .collect()
}

fn open(name: &str, pin: &Path) -> Result<RawMap> {
    RawMap::open(pin).with_context(|| format!("opening map {name} at {}", pin.display()))
}

fn carry_over(home: &Home, name: &str, new: &RawMap) -> Result<Predecessor> {
    let old = open(name, &home.map(name))?;
    let (copied, counts) = if old.shape.is_per_cpu() {
        // What is written and what is later compared with must be the same moment's.
        let counts = Counts::of(&old).with_context(|| format!("reading map {name}"))?;
        (counts.write(new), Some(counts))
    } else {
        (copy_all(&old, new), None)
    };
    let copied = copied.with_context(|| format!("copying map {name}"))?;
    report(name, new, copied)?;
    Ok(Predecessor {
        name: name.to_owned(),
        map: old,
        counts,
    })
}

fn fetch_last(predecessor: &Predecessor, new: &RawMap) -> Result<()> {
    let name = predecessor.name.as_str();
    if let Some(counts) = &predecessor.counts {
        counts
            .add_growth(&predecessor.map, new)
            .with_context(|| format!("adding up map {name}"))?;
    }
    if WRITTEN_BY_PROGRAMS.contains(&name) {
        let copied = copy_missing(&predecessor.map, new)
            .with_context(|| format!("fetching the last entries of map {name}"))?;
        report(name, new, copied)?;
    }
    Ok(())
}

fn report(name: &str, new: &RawMap, copied: Copied) -> Result<()> {
    if copied.refused == 0 {
        tracing::debug!(
            map = name,
            entries = copied.entries,
            capacity = new.shape.max_entries,
            "copied"
        );
        return Ok(());
    }
    if MAY_LOSE.contains(&name) {
        tracing::info!(
            map = name,
            entries = copied.entries,
            lost = copied.refused,
            capacity = new.shape.max_entries,
            "the smaller flow table does not hold all entries; the rest is decided again"
        );
        return Ok(());
    }
    bail!(
        "map {name}: {} entries do not fit into the {} that it would have",
        copied.entries + copied.refused,
        new.shape.max_entries
    )
}
