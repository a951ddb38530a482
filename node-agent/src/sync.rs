//! Brings the maps to what they should be. The only code that writes desired state into the kernel.

use std::collections::BTreeMap;
use std::io;

use weir_abi::config::Control;

use crate::contents::Contents;
use crate::table::{
    Addresses, Backends, Cidrs, Maps, Masquerades, NonMasquerade, Numbers, Policy, Ports, Services, Table,
    Workloads,
};
use crate::transition::{Step, transition};

/// What the maps are known to hold. After an error that is not known any more, and they are read again.
#[derive(Debug, Default)]
pub struct Sync {
    actual: Option<Contents>,
    /// Whether every connection that was decided before the last change of the maps is decided anew. Whoever wrote
    /// part of a change and stopped has not seen to that.
    settled: bool,
}

/// What one synchronisation did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries written or removed, by map.
    pub entries: BTreeMap<&'static str, u64>,
    pub revision: u32,
}

impl Sync {
    /// What the maps hold, read from them unless it is known.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn actual(&mut self, maps: &impl Maps) -> io::Result<&Contents> {
        if self.actual.is_none() {
            self.actual = Some(Contents::read(maps)?);
        }
        Ok(self.actual.get_or_insert_default())
    }

    /// Writes the difference between `desired` and what the maps hold.
    ///
    /// # Errors
    ///
    /// If a write fails. What was written stays, in an order in which it can.
    pub fn apply(&mut self, maps: &mut impl Maps, desired: Contents) -> io::Result<Written> {
        let mut steps = transition(self.actual(maps)?, &desired);
        if !self.settled && !steps.contains(&Step::RaiseRevision) {
            steps.push(Step::RaiseRevision);
        }
        self.actual = None;
        self.settled = false;
        let mut written = Written::default();
        for step in &steps {
            perform(maps, step)?;
            if let Some(name) = step.table() {
                *written.entries.entry(name).or_default() += step.len() as u64;
            }
        }
        written.revision = maps.control()?.revision;
        self.actual = Some(desired);
        self.settled = true;
        Ok(written)
    }

    /// Forgets what the maps hold: somebody else may have changed them.
    pub fn forget(&mut self) {
        self.actual = None;
        self.settled = false;
    }
}

/// Performs one step.
///
/// # Errors
///
/// If the map refuses.
pub fn perform(maps: &mut impl Maps, step: &Step) -> io::Result<()> {
    match step {
        Step::WriteNumbers(entries) => maps.write::<Numbers>(entries),
        Step::WritePorts(entries) => maps.write::<Ports>(entries),
        Step::WriteBackends(entries) => maps.write::<Backends>(entries),
        Step::WritePolicy(entries) => maps.write::<Policy>(entries),
        Step::WriteAddresses(entries) => maps.write::<Addresses>(entries),
        Step::WriteCidrs(entries) => maps.write::<Cidrs>(entries),
        Step::WriteWorkloads(entries) => maps.write::<Workloads>(entries),
        Step::WriteServices(entries) => maps.write::<Services>(entries),
        Step::WriteNonMasquerade(entries) => maps.write::<NonMasquerade>(entries),
        Step::WriteMasquerade(entries) => maps.write::<Masquerades>(entries),
        Step::DeleteMasquerade(keys) => maps.delete::<Masquerades>(keys),
        Step::DeleteNonMasquerade(keys) => maps.delete::<NonMasquerade>(keys),
        Step::DeleteServices(keys) => maps.delete::<Services>(keys),
        Step::DeleteWorkloads(keys) => maps.delete::<Workloads>(keys),
        Step::DeleteAddresses(keys) => maps.delete::<Addresses>(keys),
        Step::DeleteCidrs(keys) => maps.delete::<Cidrs>(keys),
        Step::RaiseRevision => {
            let control = maps.control()?;
            maps.set_control(Control {
                revision: control.revision.wrapping_add(1),
                ..control
            })
        }
        Step::DeletePolicy(keys) => maps.delete::<Policy>(keys),
        Step::DeletePorts(keys) => maps.delete::<Ports>(keys),
        Step::DeleteBackends(keys) => maps.delete::<Backends>(keys),
        Step::DeleteNumbers(keys) => maps.delete::<Numbers>(keys),
    }
}

impl Step {
    /// The map that the step goes to.
    fn table(&self) -> Option<&'static str> {
        Some(match self {
            Self::WriteNumbers(_) | Self::DeleteNumbers(_) => Numbers::NAME,
            Self::WritePorts(_) | Self::DeletePorts(_) => Ports::NAME,
            Self::WriteBackends(_) | Self::DeleteBackends(_) => Backends::NAME,
            Self::WritePolicy(_) | Self::DeletePolicy(_) => Policy::NAME,
            Self::WriteAddresses(_) | Self::DeleteAddresses(_) => Addresses::NAME,
            Self::WriteCidrs(_) | Self::DeleteCidrs(_) => Cidrs::NAME,
            Self::WriteWorkloads(_) | Self::DeleteWorkloads(_) => Workloads::NAME,
            Self::WriteServices(_) | Self::DeleteServices(_) => Services::NAME,
            Self::WriteNonMasquerade(_) | Self::DeleteNonMasquerade(_) => NonMasquerade::NAME,
            Self::WriteMasquerade(_) | Self::DeleteMasquerade(_) => Masquerades::NAME,
            Self::RaiseRevision => return None,
        })
    }
}
