//! What becomes of each pinned map when programs are loaded.

use super::capacities::Capacity;
use super::raw_map::Shape;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The programs work with the pinned one.
    Reuse,
    /// There is none.
    Create,
    /// It belongs to the programs that are loaded with it, as its entries are programs.
    Renew,
    /// Its capacity or flags are other ones: a new map gets its contents.
    Copy,
    /// It is of another kind, or its keys or values have another size, so the contents mean nothing to these programs.
    Replace,
}

impl Fate {
    /// `wanted` is the map as the object has it, with the capacity that was asked for.
    pub(super) fn of(wanted: &Shape, capacity: Option<Capacity>, pinned: Option<&Shape>) -> Self {
        if wanted.is_program_array() {
            return Self::Renew;
        }
        let Some(pinned) = pinned else {
            return Self::Create;
        };
        let layout = |shape: &Shape| (shape.kind, shape.key_size, shape.value_size);
        if layout(wanted) != layout(pinned) {
            return Self::Replace;
        }
        let fits = if capacity.is_some_and(|capacity| !capacity.exact) {
            pinned.max_entries >= wanted.max_entries
        } else {
            pinned.max_entries == wanted.max_entries
        };
        if fits && wanted.flags == pinned.flags {
            Self::Reuse
        } else if wanted.is_ring() {
            // The kernel lets nobody copy a ring.
            Self::Replace
        } else {
            Self::Copy
        }
    }

    pub(super) const fn is_new(self) -> bool {
        !matches!(self, Self::Reuse)
    }

    /// Whether loading the programs once more would change nothing.
    pub(super) const fn is_settled(self) -> bool {
        matches!(self, Self::Reuse | Self::Renew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Shape = Shape {
        kind: 1,
        key_size: 16,
        value_size: 24,
        flags: 1,
        max_entries: 100,
    };
    const AT_LEAST: Option<Capacity> = Some(Capacity {
        entries: 100,
        exact: false,
    });
    const EXACT: Option<Capacity> = Some(Capacity {
        entries: 100,
        exact: true,
    });

    #[test]
    fn the_same_map_is_reused() {
        for capacity in [None, AT_LEAST, EXACT] {
            assert_eq!(Fate::of(&HASH, capacity, Some(&HASH)), Fate::Reuse);
            assert_eq!(Fate::of(&HASH, capacity, None), Fate::Create);
        }
    }

    #[test]
    fn a_larger_map_will_do_unless_the_size_is_exact() {
        let larger = Shape {
            max_entries: 200,
            ..HASH
        };
        assert_eq!(Fate::of(&HASH, AT_LEAST, Some(&larger)), Fate::Reuse);
        assert_eq!(Fate::of(&HASH, EXACT, Some(&larger)), Fate::Copy);
        assert_eq!(Fate::of(&HASH, None, Some(&larger)), Fate::Copy);
    }

    #[test]
    fn a_smaller_map_is_copied() {
        let smaller = Shape {
            max_entries: 50,
            ..HASH
        };
        for capacity in [None, AT_LEAST, EXACT] {
            assert_eq!(Fate::of(&HASH, capacity, Some(&smaller)), Fate::Copy);
        }
    }

    #[test]
    fn other_flags_keep_the_contents() {
        assert_eq!(
            Fate::of(&HASH, None, Some(&Shape { flags: 0, ..HASH })),
            Fate::Copy
        );
    }

    #[test]
    fn programs_get_a_program_array_of_their_own() {
        let jump = Shape {
            kind: 3,
            key_size: 4,
            value_size: 4,
            flags: 0,
            max_entries: 1,
        };
        assert_eq!(Fate::of(&jump, None, Some(&jump)), Fate::Renew);
        assert_eq!(Fate::of(&jump, None, None), Fate::Renew);
    }

    #[test]
    fn another_layout_loses_the_contents() {
        assert_eq!(
            Fate::of(
                &HASH,
                None,
                Some(&Shape {
                    value_size: 32,
                    ..HASH
                })
            ),
            Fate::Replace
        );
        assert_eq!(
            Fate::of(&HASH, None, Some(&Shape { key_size: 8, ..HASH })),
            Fate::Replace
        );
        assert_eq!(
            Fate::of(&HASH, None, Some(&Shape { kind: 2, ..HASH })),
            Fate::Replace
        );
    }
}
