//! Applies a change, and looks at the maps after every single entry.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;
use weir_abi::config::Control;
use weir_agent::contents::Contents;
use weir_agent::desired::Desired;
use weir_agent::sync::Sync;
use weir_agent::table::{Maps, Table};
use weir_policy::resolved::Flow;

use crate::between::{is_between, points_to_what_is, serves};
use crate::judging::host::{Sides, sides};
use crate::judging::memory::MemoryMaps;

/// Maps that are looked at after every single entry.
struct Watched<'a> {
    maps: MemoryMaps,
    look: &'a mut dyn FnMut(&Contents),
    /// Whether something changed by which a packet is judged and the revision was not raised since.
    is_stale: bool,
}

impl Watched<'_> {
    fn after_entry<T: Table>(&mut self) {
        self.is_stale |= ["workloads", "addresses", "cidrs"].contains(&T::NAME);
        (self.look)(&self.maps.contents);
    }
}

impl Maps for Watched<'_> {
    fn read<T: Table>(&self) -> io::Result<BTreeMap<T::Key, T::Value>> {
        self.maps.read::<T>()
    }

    fn write<T: Table>(&mut self, entries: &[(T::Key, T::Value)]) -> io::Result<()> {
        assert!(!entries.is_empty(), "{}: a call for nothing", T::NAME);
        for entry in entries {
            self.maps.write::<T>(&[*entry])?;
            self.after_entry::<T>();
        }
        Ok(())
    }

    fn delete<T: Table>(&mut self, keys: &[T::Key]) -> io::Result<()> {
        assert!(!keys.is_empty(), "{}: a call for nothing", T::NAME);
        for key in keys {
            self.maps.delete::<T>(&[*key])?;
            self.after_entry::<T>();
        }
        Ok(())
    }

    fn control(&self) -> io::Result<Control> {
        self.maps.control()
    }

    fn set_control(&mut self, control: Control) -> io::Result<()> {
        self.is_stale &= control.revision == self.maps.control.revision;
        self.maps.set_control(control)
    }
}

/// Applies, and looks at the maps after every entry. `before` is all that may have been in force when it begins.
pub(crate) fn watch(
    sync: &mut Sync,
    contents: &Contents,
    desired: &Desired,
    before: &[&Contents],
    flows: &[Flow],
) -> Result<Contents, TestCaseError> {
    let allowed: Vec<&Contents> = before.iter().copied().chain([&desired.contents]).collect();
    let known: Vec<Vec<Sides>> = allowed
        .iter()
        .map(|contents| flows.iter().map(|flow| sides(contents, flow)).collect())
        .collect();
    let mut problem = Ok(());
    let mut states = 0;
    let mut look = |now: &Contents| {
        states += 1;
        if problem.is_ok() {
            problem = is_between(now, &allowed, &known, flows)
                .and_then(|()| serves(now, &allowed))
                .and_then(|()| points_to_what_is(now))
                .map_err(|error| TestCaseError::fail(format!("after entry {states}: {error}")));
        }
    };
    let revision = 7;
    let mut maps = MemoryMaps::new(contents.clone());
    maps.control.revision = revision;
    let mut watched = Watched {
        maps,
        look: &mut look,
        is_stale: false,
    };
    let written = sync
        .apply(&mut watched, desired.contents.clone())
        .expect("nothing fails");
    let Watched { maps, is_stale, .. } = watched;
    problem?;
    prop_assert_eq!(written.entries.values().sum::<u64>(), states);
    prop_assert_eq!(written.revision, maps.control.revision);
    prop_assert!(
        !is_stale && maps.control.revision <= revision + 1,
        "connections are decided anew once, at the end"
    );
    Ok(maps.contents)
}
