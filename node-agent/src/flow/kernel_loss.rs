//! How many records the kernel lost, from two witnesses of which neither is enough.
//!
//! The gap in the sequence is seen with the next event, and counts events; an event about two pods of this node is two
//! records. The kernel's counters count records, and are read from time to time. Each is a lower bound of what was
//! lost, so what was told is raised to the higher of the two, and is exact whenever the counters have been read.

/// Losses since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLosses {
    /// By the gaps.
    events: u64,
    /// By the counters.
    counted: u64,
    /// What the counters stood at when they were last read.
    last: Option<u64>,
    told: u64,
}

impl KernelLosses {
    /// Takes note of a gap; returns how many records are to be told as lost.
    pub fn gap(&mut self, events: u64) -> u64 {
        self.events = self.events.saturating_add(events);
        self.tell()
    }

    /// Takes note of what the counters stand at; returns how many records are to be told as lost. The first reading
    /// sets the mark, since what an earlier agent has told is not known; so does one that is lower than the last, since
    /// counters are cleared when their rule's number gets another rule.
    pub fn counted(&mut self, total: u64) -> u64 {
        let lost = self.last.replace(total).and_then(|last| total.checked_sub(last));
        self.counted = match lost {
            Some(lost) => self.counted.saturating_add(lost),
            None => self.told,
        };
        self.tell()
    }

    fn tell(&mut self) -> u64 {
        let before = self.told;
        self.told = before.max(self.events).max(self.counted);
        self.told - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_twice_whoever_sees_it_first() {
        let mut losses = KernelLosses::default();
        assert_eq!(losses.counted(100), 0, "the mark");
        assert_eq!(losses.gap(5), 5);
        assert_eq!(losses.counted(110), 5, "each event was two records");
        assert_eq!(losses.counted(114), 4, "two events that no gap shows yet");
        assert_eq!(losses.gap(2), 0, "the same");
        assert_eq!(losses.gap(9), 2, "16 events at least");
        assert_eq!(losses.counted(130), 14);
    }

    #[test]
    fn counters_that_were_cleared_set_a_new_mark() {
        let mut losses = KernelLosses::default();
        assert_eq!(
            [
                losses.counted(7),
                losses.counted(9),
                losses.counted(1),
                losses.counted(4)
            ],
            [0, 2, 0, 3]
        );
    }

    #[test]
    fn a_mark_that_comes_late_takes_nothing_back() {
        let mut losses = KernelLosses::default();
        assert_eq!(
            [
                losses.gap(3),
                losses.counted(50),
                losses.counted(51),
                losses.gap(0)
            ],
            [3, 0, 1, 0]
        );
    }
}
