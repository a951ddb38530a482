//! How large the programs are, and how much work for the verifier.

use std::collections::BTreeMap;

use weir_agent::kernel::ProgramSize;

use crate::figure::{Figure, Goal, Unit};
use crate::plain_table::plain_table;

/// Programs that a packet of a pod, or the call that sends it, can meet.
const MET_BY_A_PACKET: &[&str] = &["from_pod", "to_pod", "from_wire", "fast", "slow"];

const MOST_VERIFIED: f64 = 8_000.0;

/// Bytes of an instruction.
const INSTRUCTION: u32 = 8;

pub(super) fn table(sizes: &BTreeMap<String, ProgramSize>) -> String {
    let text = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let rows = sizes.iter().map(|(name, size)| {
        let translated = size.translated.map(|bytes| bytes / INSTRUCTION);
        let met = if MET_BY_A_PACKET.contains(&name.as_str()) {
            "yes"
        } else {
            ""
        };
        vec![
            name.clone(),
            text(size.verified),
            text(translated),
            size.jited.to_string(),
            met.to_owned(),
        ]
    });
    plain_table(
        &[
            "program",
            "verified",
            "translated",
            "bytes jited",
            "met by a packet",
        ],
        rows,
    )
}

/// Kernels before 5.16 do not count.
pub(super) fn figures(sizes: &BTreeMap<String, ProgramSize>) -> Vec<Figure> {
    let verified = |name: &&str| sizes.get(*name)?.verified;
    let counts: Option<Vec<u32>> = MET_BY_A_PACKET.iter().map(verified).collect();
    let figure = counts.map(|counts| {
        let sum = f64::from(counts.iter().sum::<u32>());
        Figure::new(
            "program.verified",
            sum,
            Unit::Instructions,
            Goal::AtMost(MOST_VERIFIED),
        )
    });
    figure.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_a_packet_meets_are_added_up() {
        let size = |verified| ProgramSize {
            verified,
            translated: None,
            jited: 0,
        };
        let mut sizes: BTreeMap<String, ProgramSize> = MET_BY_A_PACKET
            .iter()
            .map(|name| ((*name).to_owned(), size(Some(1_000))))
            .collect();
        sizes.insert("explain".to_owned(), size(Some(9_000)));
        let figure = Figure::new(
            "program.verified",
            5_000.0,
            Unit::Instructions,
            Goal::AtMost(8_000.0),
        );
        assert_eq!(figures(&sizes), [figure]);
        sizes.insert("slow".to_owned(), size(None));
        assert_eq!(figures(&sizes), []);
    }
}
