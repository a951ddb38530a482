//! Gaps in the kernel's record numbers → how many records were lost.

use std::collections::BTreeMap;

/// The next number expected of each CPU.
///
/// The first record of a CPU only sets the mark: what an earlier agent has read is not known. A number below the mark
/// means that the kernel's counter started anew, which sets the mark again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    next: BTreeMap<u16, u64>,
}

impl Sequences {
    /// Takes note of a record and returns how many before it, of the same CPU, never arrived.
    pub fn observe(&mut self, cpu: u16, sequence: u64) -> u64 {
        let expected = self
            .next
            .insert(cpu, sequence.saturating_add(1))
            .unwrap_or(sequence);
        sequence.saturating_sub(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_per_cpu() {
        let mut sequences = Sequences::default();
        let seen = [(0, 10), (1, 500), (0, 11), (1, 503), (0, 15), (0, 16)];
        let lost: Vec<u64> = seen
            .iter()
            .map(|&(cpu, sequence)| sequences.observe(cpu, sequence))
            .collect();
        assert_eq!(lost, [0, 0, 0, 2, 3, 0]);
    }

    #[test]
    fn a_counter_that_starts_anew_is_no_loss() {
        let mut sequences = Sequences::default();
        let lost: Vec<u64> = [90, 91, 0, 1, 3]
            .map(|sequence| sequences.observe(0, sequence))
            .to_vec();
        assert_eq!(lost, [0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_highest_number_does_not_wrap_into_a_loss() {
        let mut sequences = Sequences::default();
        assert_eq!(
            [u64::MAX - 1, u64::MAX, 0].map(|sequence| sequences.observe(0, sequence)),
            [0, 0, 0]
        );
    }
}
