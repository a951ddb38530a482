//! The kernel maps that hold desired state, as types: name, key and value of each, and what can be done with them.

use std::collections::BTreeMap;
use std::io;

use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::{Control, Masquerade};
use weir_abi::plain::Plain;
use weir_abi::policy::{NumberKey, NumberValue, PolicyKey, PolicyValue, PortKey, PortValue};
use weir_abi::service::{Backend, ServiceKey, ServiceValue};
use weir_abi::workload::Workload;

/// One map.
pub trait Table {
    /// In the object file, on bpffs, and in errors.
    const NAME: &'static str;
    type Key: Plain + Ord + std::fmt::Debug;
    type Value: Plain + Eq + std::fmt::Debug;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident $name:literal $key:ty => $value:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $table {}

        impl Table for $table {
            const NAME: &'static str = $name;
            type Key = $key;
            type Value = $value;
        }
    )+};
}

tables! {
    /// The pods of this node.
    Workloads "workloads" Address => Workload;
    /// Who an address belongs to.
    Addresses "addresses" Address => AddressValue;
    /// Longest matching CIDR to its number.
    Cidrs "cidrs" CidrKey => u32;
    /// Policy set, direction and peer to a decision.
    Policy "policy" PolicyKey => PolicyValue;
    /// Port table, protocol and port prefix to a decision.
    Ports "ports" PortKey => PortValue;
    /// Virtual address and port to a range of backends.
    Services "services" ServiceKey => ServiceValue;
    /// Backends; an array, so every index below its capacity exists, and a free one is zero.
    Backends "backends" u32 => Backend;
    /// Destinations that pods speak to as themselves, and which of them are the pods of other nodes.
    NonMasquerade "non_masquerade" CidrKey => u32;
    /// As whom pods speak to the outside; an array of one entry.
    Masquerades "masquerade" u32 => Masquerade;
    /// What numbers stand for.
    Numbers "numbers" NumberKey => NumberValue;
}

/// The maps of one kernel. Implemented by the kernel itself, and in memory by tests that make any call fail.
pub trait Maps {
    /// Everything that is in the map now. Of an array, the entries that are not all zero.
    fn read<T: Table>(&self) -> io::Result<BTreeMap<T::Key, T::Value>>;
    /// Inserts or replaces, in the order given.
    fn write<T: Table>(&mut self, entries: &[(T::Key, T::Value)]) -> io::Result<()>;
    /// Removes; a key that is absent is no error. Of an array, sets the entry to zero.
    fn delete<T: Table>(&mut self, keys: &[T::Key]) -> io::Result<()>;
    fn control(&self) -> io::Result<Control>;
    fn set_control(&mut self, control: Control) -> io::Result<()>;
}
