//! The maps in memory, and every way in which a call to them can stop half-way.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use weir_abi::config::Control;
use weir_agent::contents::Contents;
use weir_agent::table::{Maps, Table};

/// Maps without capacities. Whatever was written before a failure stays, as in the kernel.
#[derive(Debug, Clone, Default)]
pub struct MemoryMaps {
    pub contents: Contents,
    pub control: Control,
    /// Calls so far, reads included.
    calls: Cell<usize>,
    failure: Option<Failure>,
}

/// The call that fails, counted from 0 since the failure was ordered, and how many entries it handles before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub call: usize,
    pub entries: usize,
}

impl MemoryMaps {
    pub fn new(contents: Contents) -> Self {
        Self {
            contents,
            ..Self::default()
        }
    }

    pub fn fail(&mut self, failure: Option<Failure>) {
        self.calls.set(0);
        self.failure = failure;
    }

    /// Since the last order to fail.
    pub fn calls(&self) -> usize {
        self.calls.get()
    }

    /// How many entries the call that begins may handle.
    fn begin(&self) -> Option<usize> {
        let call = self.calls.replace(self.calls.get() + 1);
        self.failure
            .filter(|failure| failure.call == call)
            .map(|failure| failure.entries)
    }

    fn each<K: Copy>(
        &mut self,
        entries: &[K],
        name: &str,
        mut handle: impl FnMut(&mut Self, K),
    ) -> io::Result<()> {
        let allowed = self.begin();
        for entry in entries.iter().take(allowed.unwrap_or(entries.len())) {
            handle(self, *entry);
        }
        // A call that was allowed all of its entries fails when it is done: nobody can know that it did anything.
        allowed.map_or(Ok(()), |_| Err(refusal(name)))
    }

    fn table<T: Table>(&mut self) -> &mut BTreeMap<T::Key, T::Value> {
        let contents = &mut self.contents;
        let table: &mut dyn Any = match T::NAME {
            "workloads" => &mut contents.workloads,
            "addresses" => &mut contents.addresses,
            "cidrs" => &mut contents.cidrs,
            "policy" => &mut contents.policy,
            "ports" => &mut contents.ports,
            "services" => &mut contents.services,
            "backends" => &mut contents.backends,
            "non_masquerade" => &mut contents.non_masquerade,
            "masquerade" => &mut contents.masquerade,
            "numbers" => &mut contents.numbers,
            name => panic!("a table {name} is new"),
        };
        table
            .downcast_mut()
            .unwrap_or_else(|| panic!("{} has other keys or values", T::NAME))
    }
}

fn refusal(name: &str) -> io::Error {
    io::Error::other(format!("map {name}: the test wants a failure"))
}

impl Maps for MemoryMaps {
    fn read<T: Table>(&self) -> io::Result<BTreeMap<T::Key, T::Value>> {
        match self.begin() {
            Some(_) => Err(refusal(T::NAME)),
            None => Ok(self.clone().table::<T>().clone()),
        }
    }

    fn write<T: Table>(&mut self, entries: &[(T::Key, T::Value)]) -> io::Result<()> {
        self.each(entries, T::NAME, |maps, (key, value)| {
            maps.table::<T>().insert(key, value);
        })
    }

    fn delete<T: Table>(&mut self, keys: &[T::Key]) -> io::Result<()> {
        self.each(keys, T::NAME, |maps, key| {
            maps.table::<T>().remove(&key);
        })
    }

    fn control(&self) -> io::Result<Control> {
        match self.begin() {
            Some(_) => Err(refusal("control")),
            None => Ok(self.control),
        }
    }

    fn set_control(&mut self, control: Control) -> io::Result<()> {
        self.each(&[control], "control", |maps, control| maps.control = control)
    }
}
