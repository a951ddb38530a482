//! The kernel side: loads the programs, pins maps and links, attaches, and gives access to the maps.
//!
//! Everything pinned outlives the agent. [`Kernel::open`] adopts what an agent before left, [`Kernel::retain_links`]
//! removes what nobody wants any more, [`remove_all`] uninstalls.

mod attach;
mod bytes;
mod capacities;
mod clsact;
mod copy;
mod counters;
mod explain;
mod fate;
mod flows;
mod generation;
mod hook;
mod instructions;
mod links;
mod maps;
mod object;
mod pin;
mod probe;
mod raw_map;
mod ring;
mod sys;
mod test_run;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use attach::{AttachBy, Wanted, remove_all};
pub use capacities::Capacities;
pub use counters::LogCount;
pub use flows::{FlowKey, FlowTable, FlowTables};
pub use hook::{Attachment, Hook};
pub use instructions::ProgramSize;
pub use object::OBJECT;
pub use probe::Abilities;
pub use ring::Ring;
pub use test_run::{TestOutcome, TestPacket, test_run};

use generation::Generation;
use object::Globals;
use pin::{Home, Lock};

/// What an agent decides about the kernel side once, when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The object file with the programs, 4-byte aligned: [`OBJECT`], but for tests.
    pub object: &'static [u8],
    /// A directory on a bpffs, ours alone. Where it is on none, one is mounted there.
    pub bpffs: PathBuf,
    /// Holds the lock that keeps two agents from running at once.
    pub state: PathBuf,
    pub capacities: Capacities,
    pub attach_by: AttachBy,
}

/// The loaded programs and their maps. Dropping it leaves everything running.
#[derive(Debug)]
pub struct Kernel {
    config: Config,
    abilities: Abilities,
    home: Home,
    generation: Generation,
    /// Filters on clsact that are ours.
    clsact: BTreeSet<Attachment>,
    _lock: Lock,
}

impl Kernel {
    /// Loads the programs and adopts what is pinned: maps keep their contents, links get the new programs in one
    /// step each. Pinned maps of another capacity are copied; of the maps that grow with the load, a larger one is
    /// kept. Deletes no link.
    ///
    /// # Errors
    ///
    /// If another agent runs, the kernel refuses a program, or a map cannot be made. Until every program is verified
    /// and every map copied, what ran before is not touched, and after an error it runs on.
    pub fn open(config: Config) -> Result<Self> {
        let lock = Lock::take(&config.state)?;
        let home = Home::open(&config.bpffs)?;
        let abilities = Abilities::of_this_kernel()?;
        let generation = prepare(&home, &config, abilities)?;
        let mut kernel = Self {
            config,
            abilities,
            home,
            generation,
            clsact: BTreeSet::new(),
            _lock: lock,
        };
        if let Err(error) = kernel.switch() {
            kernel.generation.abandon()?;
            return Err(error);
        }
        kernel.finish()?;
        Ok(kernel)
    }

    /// Makes maps larger while the programs run. Flow tables get exactly the size given, other maps at least that.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn grow(&mut self, capacities: Capacities) -> Result<()> {
        let config = Config {
            capacities,
            ..self.config.clone()
        };
        if Generation::changes_no_map(&self.home, config.object, &capacities)? {
            self.config = config;
            return Ok(());
        }
        let next = prepare(&self.home, &config, self.abilities)?;
        let former = std::mem::replace(&mut self.generation, next);
        if let Err(error) = self.switch() {
            let failed = std::mem::replace(&mut self.generation, former);
            self.switch().context("going back to the programs before")?;
            failed.abandon()?;
            return Err(error);
        }
        self.config = config;
        self.finish()
    }

    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Maps that were there with another layout, so that they started empty.
    pub fn replaced_maps(&self) -> Vec<&str> {
        self.generation.replaced()
    }

    /// Removes the maps that agents of other versions left. To be called when everything of theirs was replaced.
    pub fn remove_other_versions(&self) -> Result<()> {
        self.home.remove_other_versions()
    }

    /// After the switch: the old maps get no more entries, so the new ones take their places.
    fn finish(&mut self) -> Result<()> {
        // Best effort: without the call, an entry that a program writes at this very moment is decided again later.
        if let Err(error) = sys::wait_for_running_programs() {
            tracing::debug!(%error, "cannot wait for the programs that still run");
        }
        self.generation.finish(&self.home)
    }
}

fn prepare(home: &Home, config: &Config, abilities: Abilities) -> Result<Generation> {
    let globals = Globals {
        abilities,
        // Before 5.14 nobody can ask; an agent is then taken to run in the kernel's first namespace.
        node_netns: sys::netns_cookie().unwrap_or_default(),
    };
    Generation::prepare(home, config.object, globals, &config.capacities)
        .context("loading the programs (those that run already are not touched)")
}

/// The agent moves them between threads.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Kernel>();
    is_send::<Ring>();
};
