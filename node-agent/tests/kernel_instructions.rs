//! How much work the programs are for the verifier: it bounds what they can cost and how long loading takes, and a
//! jump is always an accident.
#![expect(clippy::print_stderr, reason = "says what is not compared and how to record")]

mod kernel_bed;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use kernel_bed::in_bed;
use weir_agent::kernel::ProgramSize;

/// In this variable: anything, to write the file anew.
const RECORD: &str = "WEIR_RECORD_INSTRUCTIONS";

/// How far above what is recorded a program may be, in percent.
const TOLERANCE: u32 = 5;

/// What a packet from or to a pod can meet. The socket programs count for themselves, as they do for others.
const MET: &[&str] = &["from_pod", "to_pod", "from_wire", "fast", "slow"];

/// Goal for all that a packet can meet.
const MOST: u32 = 8_000;

#[test]
fn the_programs_that_a_packet_can_meet_are_little_work() {
    in_bed(|bed| {
        let verified = instructions(&bed.kernel().program_sizes().expect("sizes"));
        let sum: u32 = verified
            .iter()
            .filter(|(name, _)| MET.contains(&name.as_str()))
            .map(|(_, count)| count)
            .sum();
        assert!(
            sum <= MOST,
            "{sum} verified instructions, at most {MOST} are wanted: {verified:?}"
        );
    });
}

#[test]
fn no_program_became_much_more_work() {
    let mut verified = BTreeMap::new();
    in_bed(|bed| verified = instructions(&bed.kernel().program_sizes().expect("sizes")));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt");
    if std::env::var_os(RECORD).is_some() {
        fs::write(&path, to_text(&verified)).expect("recording");
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let (kernel, recorded) = from_text(&text);
    let how = format!("to accept: {RECORD}=1 cargo test -p weir-agent --test kernel_instructions");

    if kernel != running_kernel() {
        eprintln!(
            "SKIPPED comparison: recorded on Linux {kernel}, this is {}; {verified:?}",
            running_kernel()
        );
        return;
    }
    assert_eq!(
        verified.keys().collect::<Vec<_>>(),
        recorded.keys().collect::<Vec<_>>(),
        "other programs than recorded; {how}"
    );
    let grown: Vec<String> = verified
        .iter()
        .filter(|(name, count)| **count * 100 > recorded[*name] * (100 + TOLERANCE))
        .map(|(name, count)| format!("{name} from {} to {count}", recorded[name]))
        .collect();
    assert!(
        grown.is_empty(),
        "more verified instructions: {}; {how}",
        grown.join(", ")
    );
}

fn instructions(sizes: &BTreeMap<String, ProgramSize>) -> BTreeMap<String, u32> {
    let count = |size: &ProgramSize| {
        size.verified
            .expect("the kernel counts verified instructions from 5.16 on")
    };
    sizes
        .iter()
        .map(|(name, size)| (name.clone(), count(size)))
        .collect()
}

/// Counts differ between versions of the verifier, not between its patch releases.
fn running_kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn to_text(verified: &BTreeMap<String, u32>) -> String {
    let lines: String = verified
        .iter()
        .map(|(name, count)| format!("{name} {count}\n"))
        .collect();
    format!("linux {}\n{lines}", running_kernel())
}

fn from_text(text: &str) -> (String, BTreeMap<String, u32>) {
    let mut words = text.lines().filter_map(|line| line.split_once(' '));
    let kernel = words
        .next()
        .map(|(_, version)| version.to_owned())
        .unwrap_or_default();
    (
        kernel,
        words
            .map(|(name, count)| (name.to_owned(), count.parse().expect("a count")))
            .collect(),
    )
}
