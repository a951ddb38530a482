//! The loaded programs together with what their maps hold: makes the kernel hold a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use weir_abi::config::Control;
use weir_abi::policy::{NumberKey, NumberValue};
use weir_policy::resolved::Cause;
use weir_policy::snapshot::PodId;

use crate::contents::Contents;
use crate::desired::{Desired, Inputs, LocalPod, TooManyRules, desired};
use crate::kernel::{Capacities, Config, Kernel};
use crate::network::NetworkSettings;
use crate::plan::Plan;
use crate::services::ServicePort;
use crate::sync::{Sync, Written};
use crate::table::Maps as _;
use crate::transition::most_policy_entries;

#[derive(Debug)]
pub struct Programming {
    pub kernel: Kernel,
    sync: Sync,
    capacities: Capacities,
    /// What each rule number stands for.
    rules: BTreeMap<u32, Cause>,
    network: NetworkSettings,
}

impl Programming {
    /// Loads the programs. `log_budget` is in records a second and CPU.
    ///
    /// # Errors
    ///
    /// As [`Kernel::open`].
    pub fn open(config: Config, log_budget: u32) -> Result<Self> {
        let capacities = config.capacities;
        let mut kernel = Kernel::open(config)?;
        let control = kernel.control()?;
        if control.log_budget != log_budget {
            kernel.set_control(Control {
                log_budget,
                ..control
            })?;
        }
        Ok(Self {
            kernel,
            sync: Sync::default(),
            capacities,
            rules: BTreeMap::new(),
            network: NetworkSettings::default(),
        })
    }

    /// What [`program`](Self::program) does from here on; nothing changes by this alone. Connections that live keep
    /// the address that they have.
    pub fn set_network(&mut self, network: NetworkSettings) {
        self.network = network;
    }

    /// Gives the flow tables another size, while they are in use.
    ///
    /// # Errors
    ///
    /// As [`Kernel::grow`].
    pub fn set_flows(&mut self, flows: u32) -> Result<()> {
        if flows == self.capacities.flows {
            return Ok(());
        }
        self.grow(Capacities {
            flows,
            ..self.capacities
        })
    }

    /// `log_budget` is in records a second and CPU.
    ///
    /// # Errors
    ///
    /// If the map cannot be read or written.
    pub fn set_log_budget(&mut self, log_budget: u32) -> Result<()> {
        let control = self.kernel.control()?;
        if control.log_budget != log_budget {
            self.kernel.set_control(Control {
                log_budget,
                ..control
            })?;
        }
        Ok(())
    }

    /// The numbers that were given so far.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read.
    pub fn numbers(&mut self) -> Result<BTreeMap<NumberKey, NumberValue>> {
        Ok(self.sync.actual(&self.kernel)?.numbers.clone())
    }

    pub fn rules(&self) -> &BTreeMap<u32, Cause> {
        &self.rules
    }

    /// Makes the kernel hold what follows from the arguments; maps grow where it does not fit.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. Then the maps are read anew before the next try.
    pub fn program(
        &mut self,
        plan: &Plan,
        pods: &BTreeMap<PodId, LocalPod>,
        services: &[ServicePort],
        own_addresses: &BTreeSet<IpAddr>,
    ) -> Result<Written> {
        let wanted = loop {
            let rule_capacity = self.capacities.rules;
            let inputs = Inputs {
                plan,
                pods,
                services,
                own_addresses,
                network: &self.network,
                rule_capacity,
            };
            match desired(&inputs, self.sync.actual(&self.kernel)?) {
                Ok(wanted) => break wanted,
                Err(TooManyRules { needed, .. }) => {
                    self.grow(Capacities {
                        rules: room_for(needed),
                        ..self.capacities
                    })?;
                }
            }
        };
        self.make_room(&wanted)?;
        let Desired {
            contents,
            rules,
            new_rules,
        } = wanted;
        // Before an entry names them.
        let new_rules: Vec<u32> = new_rules.into_iter().collect();
        self.kernel.clear_rule_counts(&new_rules)?;
        let written = self
            .sync
            .apply(&mut self.kernel, contents)
            .context("writing the maps")?;
        self.rules = rules;
        Ok(written)
    }

    /// Old and new entries are in the maps together for a while.
    fn make_room(&mut self, wanted: &Desired) -> Result<()> {
        let now = self.capacities;
        let needed = needed(self.sync.actual(&self.kernel)?, &wanted.contents);
        let next = Capacities {
            addresses: now.addresses.max(needed.addresses),
            cidrs: now.cidrs.max(needed.cidrs),
            policy: now.policy.max(needed.policy),
            ports: now.ports.max(needed.ports),
            workloads: now.workloads.max(needed.workloads),
            services: now.services.max(needed.services),
            backends: now.backends.max(needed.backends),
            numbers: now.numbers.max(needed.numbers),
            non_masquerade: now.non_masquerade.max(needed.non_masquerade),
            ..now
        };
        if next == now { Ok(()) } else { self.grow(next) }
    }

    fn grow(&mut self, capacities: Capacities) -> Result<()> {
        tracing::info!(?capacities, "maps grow with the load");
        self.kernel.grow(capacities).context("making the maps larger")?;
        self.capacities = capacities;
        Ok(())
    }
}

fn needed(actual: &Contents, wanted: &Contents) -> Capacities {
    Capacities {
        addresses: both(&actual.addresses, &wanted.addresses),
        cidrs: both(&actual.cidrs, &wanted.cidrs),
        policy: room_for(most_policy_entries(actual, wanted)),
        ports: both(&actual.ports, &wanted.ports),
        workloads: both(&actual.workloads, &wanted.workloads),
        services: both(&actual.services, &wanted.services),
        backends: room_for(
            wanted
                .backends
                .last_key_value()
                .map_or(0, |(index, _)| *index as usize + 1),
        ),
        numbers: both(&actual.numbers, &wanted.numbers),
        non_masquerade: both(&actual.non_masquerade, &wanted.non_masquerade),
        ..Capacities::default()
    }
}

fn both<K: Ord, V>(actual: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> u32 {
    let new = wanted.keys().filter(|key| !actual.contains_key(key)).count();
    room_for(actual.len() + new)
}

/// A capacity for so many entries, with a fifth to spare: a power of two, so that a growing load makes few changes.
fn room_for(entries: usize) -> u32 {
    let spare = entries.saturating_add(entries / 4);
    u32::try_from(spare)
        .unwrap_or(u32::MAX)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
}
