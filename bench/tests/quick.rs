//! The benchmarks run to their end, say what they should, and leave nothing behind. What the figures are is not judged:
//! a machine that runs tests is no place to measure.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// They all measure on the same CPU, one of them in real time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn bench(arguments: &[&str]) -> Output {
    let uid = fs::metadata("/proc/self").expect("proc").uid();
    assert_eq!(
        uid, 0,
        "the benchmarks load BPF programs and make network namespaces: run this test as root"
    );
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args(arguments)
        .arg("--quick")
        .output()
        .expect("weir-bench runs")
}

/// Values by metric, from the lines at the end of the output.
fn figures(output: &Output) -> BTreeMap<String, f64> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = text.lines().filter(|line| line.contains('\t'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [metric, value, _unit, _goal, word] = fields[..] else {
                panic!("{line:?}: five fields")
            };
            assert!(["ok", "short"].contains(&word), "{line:?}");
            (
                metric.to_owned(),
                value.parse().unwrap_or_else(|_| panic!("{line:?}: a number")),
            )
        })
        .collect()
}

fn names(figures: &BTreeMap<String, f64>) -> Vec<&str> {
    figures.keys().map(String::as_str).collect()
}

#[test]
fn memory_of_every_kind_is_told() {
    let figures = figures(&bench(&["memory"]));
    let expected = [
        "memory.maps",
        "memory.maps.events",
        "memory.maps.flows",
        "memory.maps.state",
        "memory.maps.traffic",
        "memory.maps_with_rounding",
        "memory.writing",
    ];
    assert_eq!(names(&figures), expected);
    let parts: f64 = ["events", "state", "traffic"]
        .iter()
        .map(|part| figures[&format!("memory.maps.{part}")])
        .sum();
    assert!((figures["memory.maps"] - parts).abs() < 0.02, "{figures:?}");
    assert!(figures.values().all(|value| *value > 0.0), "{figures:?}");
}

#[test]
fn every_packet_takes_its_path() {
    let figures = figures(&bench(&["program"]));
    let expected = [
        "program.denied",
        "program.empty",
        "program.established.tcp4",
        "program.established.tcp6",
        "program.established.udp4",
        "program.established.udp6",
        "program.floor.v4",
        "program.floor.v6",
        "program.new.cold",
        "program.new.tcp4",
        "program.new.tcp6",
        "program.new.udp4",
        "program.new.udp6",
        "program.new.unlogged",
        "program.opening",
        "program.restored",
        "program.service.established",
        "program.service.new",
        "program.verified",
    ];
    assert_eq!(names(&figures), expected);
    let own = |name: &str| figures[&format!("program.{name}")];
    // What does more takes longer, on any machine.
    assert!(
        own("empty") < own("floor.v4") && own("floor.v4") < own("established.udp4"),
        "{figures:?}"
    );
    assert!(own("established.tcp4") < own("new.tcp4"), "{figures:?}");
}

#[test]
fn results_are_saved_where_they_should_be() {
    let directory = std::env::temp_dir().join(format!("weir-bench-results-{}", std::process::id()));
    let output = bench(&["memory", "--save", &directory.display().to_string()]);
    let figures = figures(&output);
    let files: Vec<_> = fs::read_dir(&directory)
        .expect("a directory")
        .flatten()
        .map(|file| file.path())
        .collect();
    let text = files
        .first()
        .map(|file| fs::read_to_string(file).expect("text"))
        .unwrap_or_default();
    fs::remove_dir_all(&directory).expect("removed");
    assert_eq!(files.len(), 1);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(lines[0]["machine"]["kernel"].is_string(), "{}", lines[0]);
    let saved: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["figure"]["metric"].as_str())
        .collect();
    assert_eq!(saved.len(), figures.len());
    assert!(
        saved.iter().all(|metric| figures.contains_key(*metric)),
        "{saved:?}"
    );
}

/// Needs `weir-agent` and `weir-netperf`, which `cargo test --workspace` builds.
#[test]
fn traffic_goes_every_way() {
    let figures = figures(&bench(&["tax"]));
    let paths = [
        "direct2",
        "floor",
        "weir-1",
        "weir-service",
        "weir-1-service",
        "floor-v6",
        "weir-v6",
    ];
    for metric in [
        "tax.udp_ns_per_packet",
        "tax.tcp_rr_ns",
        "tax.tcp_crr_us",
        "crr.ratio",
    ] {
        assert!(figures.contains_key(metric), "{metric}");
        for path in paths {
            assert!(
                figures.contains_key(&format!("{metric}.{path}")),
                "{metric}.{path}"
            );
        }
    }
    assert!(figures["tax.connections_logged"] > 0.0);
    assert_eq!(figures["tax.connections_not_logged"].to_bits(), 0.0_f64.to_bits());
}
