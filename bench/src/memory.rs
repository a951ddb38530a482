//! What the maps take with a large cluster in them, by the kernel's own account (`/proc/self/fdinfo`, `memlock`).

mod fdinfo;

use anyhow::{Context, Result};
use aya::maps::MapType;
use serde::Serialize;
use weir_agent::kernel::{AttachBy, Config, Kernel, OBJECT, remove_all};
use weir_testbed::Testbed;

use crate::arguments::Options;
use crate::figure::{Figure, Goal, Unit};
use crate::load::Written;
use crate::plain_table::plain_table;
use crate::report::{Report, progress};

const MOST_MB: f64 = 32.0;
/// A node that starts empty.
const MOST_WRITING_MS: f64 = 250.0;

/// What a map is for, which decides what its size follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    /// Desired state: follows the cluster.
    State,
    /// Fragments and translated sockets: follows the node's traffic.
    Traffic,
    /// The ring and the counters.
    Events,
    /// Follows the memory of the node; not counted.
    Flows,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct MapMemory {
    map: String,
    purpose: Purpose,
    kind: String,
    capacity: u32,
    /// What the kernel says.
    bytes: u64,
    /// What rounding up to the allocator's sizes adds, where elements are allocated one by one.
    rounding: u64,
}

pub fn run(testbed: &Testbed, options: &Options, report: &mut Report) -> Result<()> {
    progress("memory: filling the maps");
    let (bpffs, state) = (testbed.bpffs().join("memory"), testbed.subdirectory("memory")?);
    let load = options.load();
    let mut kernel = Kernel::open(Config {
        object: OBJECT,
        bpffs: bpffs.clone(),
        state: state.clone(),
        capacities: load.capacities(),
        attach_by: AttachBy::Best,
    })?;
    let written = load.write(&mut kernel)?;
    let maps = measure(&kernel, &written)?;
    drop(kernel);
    remove_all(&bpffs, &state)?;
    for map in &maps {
        report.keep("memory", map)?;
    }
    report.add("memory of the maps", &memory_table(&maps), memory_figures(&maps))?;
    report.add(
        "writing them",
        &writing_table(&written),
        writing_figures(&written),
    )
}

fn measure(kernel: &Kernel, written: &[Written]) -> Result<Vec<MapMemory>> {
    let mut maps = Vec::new();
    for (name, id) in kernel.map_ids() {
        let map = fdinfo::map(id).with_context(|| format!("map {name}"))?;
        let elements = written
            .iter()
            .find(|written| written.table == name)
            .map_or(0, |w| w.entries as u64);
        let rounding = if map.kind == MapType::Hash && !map.preallocated {
            fdinfo::rounding(map.key_size, map.value_size) * elements
        } else {
            0
        };
        maps.push(MapMemory {
            purpose: purpose(&name),
            map: name,
            kind: format!("{:?}", map.kind),
            capacity: map.capacity,
            bytes: map.bytes,
            rounding,
        });
    }
    maps.sort_by(|a, b| (a.purpose, &a.map).cmp(&(b.purpose, &b.map)));
    Ok(maps)
}

fn purpose(map: &str) -> Purpose {
    match map {
        "flows4" | "flows6" | "spill4" | "spill6" => Purpose::Flows,
        "fragments" | "sockets" => Purpose::Traffic,
        "counters" | "events" | "log_budget" | "overflow" | "rule_counts" => Purpose::Events,
        _ => Purpose::State,
    }
}

fn memory_table(maps: &[MapMemory]) -> String {
    let rows = maps.iter().map(|map| {
        let purpose = format!("{:?}", map.purpose).to_lowercase();
        vec![
            map.map.clone(),
            purpose,
            map.kind.clone(),
            map.capacity.to_string(),
            Unit::MB.text(megabytes(map.bytes)),
            Unit::MB.text(megabytes(map.bytes + map.rounding)),
        ]
    });
    plain_table(&["map", "for", "kind", "capacity", "MB", "with rounding"], rows)
}

fn memory_figures(maps: &[MapMemory]) -> Vec<Figure> {
    let sum = |which: &dyn Fn(Purpose) -> bool, bytes: &dyn Fn(&MapMemory) -> u64| {
        megabytes(maps.iter().filter(|map| which(map.purpose)).map(bytes).sum())
    };
    let counted = |purpose| purpose != Purpose::Flows;
    let mut figures = vec![
        Figure::new(
            "memory.maps",
            sum(&counted, &|map| map.bytes),
            Unit::MB,
            Goal::AtMost(MOST_MB),
        ),
        Figure::new(
            "memory.maps_with_rounding",
            sum(&counted, &|map| map.bytes + map.rounding),
            Unit::MB,
            Goal::None,
        ),
    ];
    let parts = [
        ("state", Purpose::State),
        ("traffic", Purpose::Traffic),
        ("events", Purpose::Events),
        ("flows", Purpose::Flows),
    ];
    for (word, part) in parts {
        let value = sum(&|purpose| purpose == part, &|map| map.bytes);
        figures.push(Figure::new(
            format!("memory.maps.{word}"),
            value,
            Unit::MB,
            Goal::None,
        ));
    }
    figures
}

fn writing_table(written: &[Written]) -> String {
    let rows = written.iter().map(|written| {
        let nanos = written.time.as_nanos() as f64;
        vec![
            written.table.to_owned(),
            written.entries.to_string(),
            Unit::Ms.text(nanos / 1e6),
            Unit::Ns.text(nanos / written.entries as f64),
        ]
    });
    plain_table(&["map", "entries", "ms", "ns an entry"], rows)
}

fn writing_figures(written: &[Written]) -> Vec<Figure> {
    let sum: f64 = written
        .iter()
        .map(|written| written.time.as_secs_f64() * 1e3)
        .sum();
    vec![Figure::new(
        "memory.writing",
        sum,
        Unit::Ms,
        Goal::AtMost(MOST_WRITING_MS),
    )]
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, bytes: u64, rounding: u64) -> MapMemory {
        MapMemory {
            map: name.to_owned(),
            purpose: purpose(name),
            kind: "Hash".to_owned(),
            capacity: 1,
            bytes,
            rounding,
        }
    }

    #[test]
    fn all_but_the_flow_tables_counts() {
        let maps = [
            map("addresses", 9_000_000, 3_000_000),
            map("events", 8_000_000, 0),
            map("sockets", 7_000_000, 0),
            map("flows4", 20_000_000, 0),
        ];
        let lines: Vec<String> = memory_figures(&maps).iter().map(ToString::to_string).collect();
        let expected = [
            "memory.maps\t24.00\tMB\t<=32\tok",
            "memory.maps_with_rounding\t27.00\tMB\t-\tok",
            "memory.maps.state\t9.00\tMB\t-\tok",
            "memory.maps.traffic\t7.00\tMB\t-\tok",
            "memory.maps.events\t8.00\tMB\t-\tok",
            "memory.maps.flows\t20.00\tMB\t-\tok",
        ];
        assert_eq!(lines, expected);
    }
}
