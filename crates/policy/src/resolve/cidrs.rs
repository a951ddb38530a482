//! All CIDRs that the policies name, and which rules hold in each.
//!
//! Sorted by address and then by length, each CIDR stands before those inside it, and these stand together: the list
//! is the tree, walked from the outside in.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::{Network, Peer, Peers, Policy};
use crate::resolved::Entry;

pub(super) struct Tree {
    /// Sorted, distinct.
    cidrs: Vec<IpNet>,
    /// For each CIDR, the index past the last one inside it.
    ends: Vec<usize>,
}

impl Tree {
    pub(super) fn new<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let networks = policies.flat_map(networks);
        let cidrs: BTreeSet<IpNet> = networks
            .flat_map(|network| network.except.iter().chain([&network.cidr]))
            .copied()
            .collect();
        let cidrs: Vec<IpNet> = cidrs.into_iter().collect();
        let mut ends = vec![cidrs.len(); cidrs.len()];
        let mut open = Vec::<usize>::new();
        for (index, cidr) in cidrs.iter().enumerate() {
            while let Some(last) = open.pop_if(|last| !cidrs[*last].contains(cidr)) {
                ends[last] = index;
            }
            open.push(index);
        }
        Self { cidrs, ends }
    }

    pub(super) fn into_cidrs(self) -> Vec<IpNet> {
        self.cidrs
    }

    /// The entries of every CIDR in which what holds differs from `any`, and of those inside such a one.
    ///
    /// `networks` are those of the side's rules, each with the number of its rule. `entry` says what holds where these
    /// rules match, ascending, beside the rules for any peer.
    pub(super) fn entries(
        &self,
        networks: &[(usize, &Network)],
        any: &Entry,
        entry: impl FnMut(&[usize]) -> Entry,
    ) -> BTreeMap<usize, Entry> {
        let walk = Walk {
            tree: self,
            events: self.events(networks),
            active: Active::new(networks),
            open: Vec::new(),
            any,
            entry,
        };
        walk.entries()
    }

    /// At which CIDR each network begins and where it is interrupted.
    fn events(&self, networks: &[(usize, &Network)]) -> BTreeMap<usize, Vec<Event>> {
        let mut events = BTreeMap::<usize, Vec<Event>>::new();
        for (network, (_, Network { cidr, except })) in networks.iter().enumerate() {
            let inside = Event {
                network,
                excepted: false,
            };
            let excepted = Event {
                network,
                excepted: true,
            };
            let pairs = except.iter().map(|cidr| (cidr, excepted)).chain([(cidr, inside)]);
            for (cidr, event) in pairs {
                if let Ok(index) = self.cidrs.binary_search(cidr) {
                    events.entry(index).or_default().push(event);
                }
            }
        }
        events
    }
}

/// A network (by its index) starts to hold, or an exception of it.
#[derive(Clone, Copy)]
struct Event {
    network: usize,
    excepted: bool,
}

/// A CIDR that the walk is inside.
struct Open {
    index: usize,
    entry: Entry,
    /// It or one around it differs from `any`.
    differs: bool,
}

struct Walk<'a, F> {
    tree: &'a Tree,
    events: BTreeMap<usize, Vec<Event>>,
    active: Active,
    open: Vec<Open>,
    any: &'a Entry,
    entry: F,
}

impl<F: FnMut(&[usize]) -> Entry> Walk<'_, F> {
    /// Goes through the CIDRs in order, leaping over those that are in none of the networks.
    fn entries(mut self) -> BTreeMap<usize, Entry> {
        let mut entries = BTreeMap::new();
        let mut next = self.events.keys().next().copied();
        while let Some(index) = next.filter(|&index| index < self.tree.cidrs.len()) {
            self.leave(index);
            let open = self.enter(index);
            if open.differs {
                entries.insert(index, open.entry.clone());
            }
            let end = self.tree.ends[self.open.first().map_or(index, |outermost| outermost.index)];
            next = if index + 1 < end {
                Some(index + 1)
            } else {
                self.events.range(index + 1..).next().map(|(&index, _)| index)
            };
        }
        entries
    }

    /// Closes the CIDRs that end before `index`.
    fn leave(&mut self, index: usize) {
        let ends = &self.tree.ends;
        while let Some(closed) = self.open.pop_if(|open| ends[open.index] <= index) {
            for event in self.events.get(&closed.index).into_iter().flatten() {
                self.active.end(*event);
            }
        }
    }

    fn enter(&mut self, index: usize) -> &Open {
        let around = self.open.last();
        let differs_around = around.is_some_and(|open| open.differs);
        let entry = match (self.events.get(&index), around) {
            (None, Some(around)) => around.entry.clone(),
            (events, _) => {
                for event in events.into_iter().flatten() {
                    self.active.begin(*event);
                }
                (self.entry)(&self.active.rules())
            }
        };
        let differs = differs_around || entry != *self.any;
        self.open.push_mut(Open {
            index,
            entry,
            differs,
        })
    }
}

/// Which rules hold at the place where the walk is.
struct Active {
    networks: Vec<State>,
    /// How many networks of each rule hold.
    rules: BTreeMap<usize, usize>,
}

struct State {
    rule: usize,
    inside: bool,
    /// How many exceptions surround this place.
    exceptions: usize,
}

impl State {
    fn holds(&self) -> bool {
        self.inside && self.exceptions == 0
    }
}

impl Active {
    fn new(networks: &[(usize, &Network)]) -> Self {
        let state = |&(rule, _): &(usize, &Network)| State {
            rule,
            inside: false,
            exceptions: 0,
        };
        Self {
            networks: networks.iter().map(state).collect(),
            rules: BTreeMap::new(),
        }
    }

    fn begin(&mut self, event: Event) {
        self.change(event.network, |state| {
            if event.excepted {
                state.exceptions += 1;
            } else {
                state.inside = true;
            }
        });
    }

    fn end(&mut self, event: Event) {
        self.change(event.network, |state| {
            if event.excepted {
                state.exceptions -= 1;
            } else {
                state.inside = false;
            }
        });
    }

    fn change(&mut self, network: usize, change: impl FnOnce(&mut State)) {
        let state = &mut self.networks[network];
        let before = state.holds();
        change(state);
        match (before, state.holds()) {
            (false, true) => *self.rules.entry(state.rule).or_default() += 1,
            (true, false) => {
                if let Some(count) = self.rules.get_mut(&state.rule) {
                    *count -= 1;
                    if *count == 0 {
                        self.rules.remove(&state.rule);
                    }
                }
            }
            (false, false) | (true, true) => {}
        }
    }

    /// Ascending.
    fn rules(&self) -> Vec<usize> {
        self.rules.keys().copied().collect()
    }
}

fn networks(policy: &Policy) -> impl Iterator<Item = &Network> {
    let rules = policy.ingress.rules.iter().chain(&policy.egress.rules);
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => [].as_slice(),
        Peers::Of(peers) => peers,
    });
    peers.filter_map(|peer| match peer {
        Peer::Network(network) => Some(network),
        Peer::Pods(_) => None,
    })
}
