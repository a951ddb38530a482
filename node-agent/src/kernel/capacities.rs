//! How large each map is.

/// Entries of the maps whose size is not fixed. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// Of each of the two flow tables. They take their memory at once: 160 bytes an entry or so.
    pub flows: u32,
    pub addresses: u32,
    pub cidrs: u32,
    pub policy: u32,
    pub ports: u32,
    pub workloads: u32,
    pub services: u32,
    /// Takes its memory at once: 24 bytes an entry.
    pub backends: u32,
    /// Rule numbers, from 0; takes its memory at once: 32 bytes an entry and CPU.
    pub rules: u32,
    /// Of all number spaces together.
    pub numbers: u32,
    pub non_masquerade: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            flows: 131_072,
            addresses: 16_384,
            cidrs: 16_384,
            policy: 16_384,
            ports: 16_384,
            workloads: 1_024,
            services: 16_384,
            backends: 16_384,
            rules: 4_096,
            numbers: 65_536,
            non_masquerade: 1_024,
        }
    }
}

impl Capacities {
    /// The capacity of a map, and whether a larger one that is there already will do; `None` for maps whose size
    /// stands in the object.
    pub(super) fn of(&self, map: &str) -> Option<Capacity> {
        let at_least = |entries| {
            Some(Capacity {
                entries,
                exact: false,
            })
        };
        match map {
            "flows4" | "flows6" => Some(Capacity {
                entries: self.flows,
                exact: true,
            }),
            "addresses" => at_least(self.addresses),
            "cidrs" => at_least(self.cidrs),
            "policy" => at_least(self.policy),
            "ports" => at_least(self.ports),
            "workloads" => at_least(self.workloads),
            "services" => at_least(self.services),
            "backends" => at_least(self.backends),
            "rule_counts" => at_least(self.rules),
            "non_masquerade" => at_least(self.non_masquerade),
            "numbers" => at_least(self.numbers),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) entries: u32,
    pub(super) exact: bool,
}
