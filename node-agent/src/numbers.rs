//! Numbers for things that the kernel knows by number only.
//!
//! Who has a number keeps it, also across a restart of the agent: the `numbers` map says by digest what each stands
//! for.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use weir_abi::policy::{NumberKey, NumberValue};

/// What is known of a thing by its number. Collisions would let one thing pass for another, so it is cut from a
/// cryptographic hash.
pub type Digest = [u64; 2];

/// From here on identity numbers are names that peers have for the time of a transition; no identity is given one.
pub const FIRST_PASSING_IDENTITY: u32 = 1 << 30;

/// Digest of a sequence of texts. Their boundaries count: `["ab", "c"]` is not `["a", "bc"]`.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    let word = |from: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[from..from + 8]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8)]
}

/// Gives each of `wanted` a number of `space`, from 1. What has one in `existing` keeps it; the others get the
/// numbers after the highest in use, and start over at 1 when `limit` is reached, so that a number that became free
/// is not given again at once.
///
/// `None` where more than `limit` numbers would be needed.
pub fn assign(
    existing: &BTreeMap<NumberKey, NumberValue>,
    space: u32,
    wanted: &BTreeSet<Digest>,
    limit: u32,
) -> Option<BTreeMap<Digest, u32>> {
    let range = NumberKey { space, number: 0 }..=NumberKey {
        space,
        number: u32::MAX,
    };
    let mut taken = BTreeSet::new();
    let mut assigned = BTreeMap::new();
    for (key, value) in existing.range(range) {
        taken.insert(key.number);
        if wanted.contains(&value.digest) {
            assigned.entry(value.digest).or_insert(key.number);
        }
    }
    let first = taken.last().map_or(1, |highest| highest.saturating_add(1));
    let mut free = (first..=limit)
        .chain(1..first.min(limit))
        .filter(|number| !taken.contains(number));
    for digest in wanted {
        if !assigned.contains_key(digest) {
            assigned.insert(*digest, free.next()?);
        }
    }
    Some(assigned)
}

/// The entries of the `numbers` map for an assignment.
pub fn entries(
    space: u32,
    assigned: &BTreeMap<Digest, u32>,
) -> impl Iterator<Item = (NumberKey, NumberValue)> {
    assigned.iter().map(move |(digest, number)| {
        (
            NumberKey {
                space,
                number: *number,
            },
            NumberValue { digest: *digest },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> BTreeSet<Digest> {
        names.iter().map(|name| digest([*name])).collect()
    }

    #[test]
    fn a_number_is_kept_and_a_free_one_is_not_given_again_at_once() {
        let first = assign(&BTreeMap::new(), 1, &wanted(&["a", "b", "c"]), 10).expect("room");
        let mut numbers: Vec<u32> = first.values().copied().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);

        let existing: BTreeMap<_, _> = entries(1, &first).collect();
        let second = assign(&existing, 1, &wanted(&["b", "c", "d"]), 10).expect("room");
        assert_eq!(second[&digest(["b"])], first[&digest(["b"])]);
        assert_eq!(second[&digest(["c"])], first[&digest(["c"])]);
        assert_eq!(second[&digest(["d"])], 4);
        assert_eq!(
            assign(&existing, 2, &wanted(&["d"]), 10).expect("room")[&digest(["d"])],
            1
        );
    }

    #[test]
    fn numbers_start_over_at_the_limit_and_run_out_behind_it() {
        let key = |number| NumberKey { space: 1, number };
        let existing = BTreeMap::from([(
            key(3),
            NumberValue {
                digest: digest(["x"]),
            },
        )]);
        let assigned = assign(&existing, 1, &wanted(&["a", "b"]), 3).expect("room");
        assert_eq!(
            assigned.values().copied().collect::<BTreeSet<_>>(),
            BTreeSet::from([1, 2])
        );
        assert_eq!(assign(&existing, 1, &wanted(&["a", "b", "c"]), 3), None);
    }

    #[test]
    fn boundaries_count() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
    }
}
