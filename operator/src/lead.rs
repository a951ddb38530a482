//! What the leader does: it takes in what the watches tell, plans when that has settled, and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::apply::{Due, Writer};
use crate::cluster::HeldStatus;
use crate::conditions::{Change, change, conditions};
use crate::events::{Events, is_worth_telling};
use crate::health::{Health, Phase};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::plan::{Wanted, plan};
use crate::statuses::{Facts, Status, Subject, statuses};
use crate::world::{Effect, Update, World};
use crate::writes::{Writes, writes};

/// A plan is made when nothing has happened for this long…
const QUIET: Duration = Duration::from_millis(100);
/// …or the first of what happened is this long ago.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a node may wait to lose what has become superfluous.
const SUPERFLUOUS: Duration = Duration::from_secs(10);
/// How often Leases and waiting statuses are looked at.
const TICK: Duration = Duration::from_millis(500);
/// At most so many statuses are written between two looks at what else there is to do.
const STATUSES: usize = 64;
/// To work statuses out takes at most one part in so many of the time.
const STATUSES_SHARE: u32 = 8;
/// After a write failed.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Leader {
    world: World,
    writer: Writer,
    events: Events,
    metrics: Metrics,
    health: Health,
    started: Instant,
    wanted: Option<Wanted>,
    /// Something has happened that `wanted` does not know of: what it says of a policy may no longer be true.
    is_outdated: bool,
    /// The nodes whose Leases had expired when they were looked at last.
    cut_off: BTreeSet<String>,
    pace: Pace,
    dirty: Option<Dirty>,
    statuses_due: bool,
    /// They are not worked out before.
    statuses_not_before: Instant,
    /// Since when some node has had something superfluous.
    superfluous_since: Option<Instant>,
}

/// Something has happened that is not planned for yet.
#[derive(Debug, Clone, Copy)]
struct Dirty {
    first: Instant,
    last: Instant,
}

impl Leader {
    #[must_use]
    pub fn new(writer: Writer, events: Events, metrics: Metrics, health: Health) -> Self {
        Self {
            world: World::default(),
            writer,
            events,
            metrics,
            health,
            started: Instant::now(),
            wanted: None,
            is_outdated: false,
            cut_off: BTreeSet::new(),
            pace: Pace::default(),
            dirty: None,
            statuses_due: false,
            statuses_not_before: Instant::now(),
            superfluous_since: None,
        }
    }

    /// Leads until the watches end.
    pub async fn lead(mut self, mut updates: mpsc::Receiver<Update>) {
        loop {
            tokio::select! {
                update = updates.recv() => {
                    let Some(update) = update else { return };
                    self.take(update);
                    while let Ok(update) = updates.try_recv() {
                        self.take(update);
                    }
                }
                () = sleep_until(self.next_look()) => {}
            }
            if !self.world.is_complete() {
                continue;
            }
            self.health.set(Phase::Leading);
            self.look_at_leases();
            if self.is_plan_due() {
                self.round().await;
            }
            self.write_statuses().await;
        }
    }

    fn take(&mut self, update: Update) {
        let Effect {
            plan,
            statuses,
            acknowledged,
        } = self.world.update(update, Timestamp::now());
        let waits = self.wanted.as_ref().is_some_and(|wanted| wanted.waits_for_nodes);
        if plan || (acknowledged && waits) {
            self.touch();
        }
        self.is_outdated |= plan;
        self.statuses_due |= statuses;
    }

    fn touch(&mut self) {
        let now = Instant::now();
        let first = self.dirty.map_or(now, |dirty| dirty.first);
        self.dirty = Some(Dirty { first, last: now });
    }

    fn plan_time(&self) -> Option<Instant> {
        let dirty = self
            .dirty
            .map(|dirty| (dirty.last + QUIET).min(dirty.first + PATIENCE));
        let superfluous = self.superfluous_since.map(|since| since + SUPERFLUOUS);
        match (dirty, superfluous) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn is_plan_due(&self) -> bool {
        self.plan_time().is_some_and(|time| time <= Instant::now())
    }

    fn next_look(&self) -> Instant {
        let mut look = Instant::now() + TICK;
        if self.statuses_due && !self.is_outdated && self.wanted.is_some() {
            look = look.min(self.statuses_not_before);
        }
        self.plan_time().map_or(look, |time| time.min(look))
    }

    fn look_at_leases(&mut self) {
        let cut_off = self.world.agents.cut_off(Timestamp::now());
        if cut_off != self.cut_off {
            for node in cut_off.difference(&self.cut_off) {
                tracing::warn!(node, "the node's agent has not renewed its Lease");
            }
            for node in self.cut_off.difference(&cut_off) {
                tracing::info!(node, "the node's agent is heard of again");
            }
            self.metrics.cut_off(cut_off.len());
            self.cut_off = cut_off;
            self.statuses_due = true;
        }
    }

    /// Plans and writes.
    async fn round(&mut self) {
        self.dirty = None;
        let started = Instant::now();
        let wanted = plan(&self.world.cluster, &self.world.existing);
        self.is_outdated = false;
        let identities = wanted.identity_slices.values().flatten();
        let identities = identities.map(|namespace| namespace.identities.len()).sum();
        self.metrics
            .planned(started.elapsed(), wanted.nodes.len(), identities);
        let mut writes = writes(&self.world.cluster, &wanted, &self.world.existing);
        self.release_superfluous(&mut writes);
        self.statuses_due = true;
        if !writes.is_empty() {
            let (planning, writing) = (started.elapsed(), Instant::now());
            if let Err(error) = self.write(&wanted, &writes).await {
                tracing::warn!(%error, "not everything could be written; it is tried again");
                let again = Instant::now() + RETRY;
                self.dirty = Some(Dirty {
                    first: again,
                    last: again,
                });
            } else if !writes.touches_no_book() {
                // What an address carried until then is superfluous.
                self.touch();
            }
            tracing::debug!(
                identity_slices = writes.identity_slices.len(),
                address_slices = writes.address_slices.len(),
                nodes = writes.nodes.len(),
                revision = writes.address_book,
                ?planning,
                writing = ?writing.elapsed(),
                "written"
            );
        }
        self.metrics
            .finished_round(started.elapsed(), self.world.existing.head().0);
        self.wanted = Some(wanted);
    }

    /// Lets the nodes that can wait do so until their time has come.
    fn release_superfluous(&mut self, writes: &mut Writes) {
        if writes.patient.is_empty() {
            self.superfluous_since = None;
            return;
        }
        let since = *self.superfluous_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SUPERFLUOUS {
            writes.nodes.append(&mut writes.patient);
            self.superfluous_since = None;
        }
    }

    async fn write(&mut self, wanted: &Wanted, writes: &Writes) -> Result<(), kube::Error> {
        let World {
            cluster, existing, ..
        } = &mut self.world;
        self.writer.book(writes, existing).await?;
        self.writer
            .nodes(&writes.nodes, writes.address_book, cluster, wanted, existing)
            .await
    }

    async fn write_statuses(&mut self) {
        if self.is_outdated || (!self.statuses_due && !self.pace.is_waiting()) {
            return;
        }
        let Some(wanted) = &self.wanted else { return };
        let started = Instant::now();
        if started < self.statuses_not_before {
            return;
        }
        self.statuses_due = false;
        let all = statuses(Facts {
            cluster: &self.world.cluster,
            existing: &self.world.existing,
            wanted,
            cut_off: &self.cut_off,
        });
        let subjects: Vec<&Subject> = all.iter().map(|status| &status.subject).collect();
        self.pace.keep(&subjects);
        let now = self.started.elapsed();
        self.pace.begin(now);
        let mut due = Vec::new();
        for status in &all {
            let held = status.held(&self.world.cluster);
            let change = change(status, held);
            if change != Change::None && due.len() >= STATUSES {
                self.statuses_due = true;
            } else if self.pace.is_due(&status.subject, change, now) {
                due.push(Due {
                    status: status.clone(),
                    conditions: conditions(status, held.conditions, Timestamp::now()),
                    is_sound: held.is_sound,
                });
            }
        }
        self.statuses_not_before = Instant::now() + started.elapsed() * STATUSES_SHARE;
        for (due, written) in self.writer.statuses(due).await {
            let Due {
                status, conditions, ..
            } = due;
            if written {
                self.pace.note_write(&status.subject, now);
                self.tell(&status);
                self.hold(status, conditions);
            } else {
                self.pace.note_failure(&status.subject, now);
            }
        }
    }

    fn tell(&self, status: &Status) {
        let held = status.held(&self.world.cluster);
        for outcome in &status.outcomes {
            let before = held
                .conditions
                .iter()
                .find(|known| known.type_ == outcome.condition);
            if is_worth_telling(outcome, before.map(|known| known.status.as_str())) {
                self.events.tell(status, outcome);
            }
        }
    }

    /// What was written is known before the watch tells of it.
    fn hold(
        &mut self,
        status: Status,
        conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    ) {
        let cluster = &mut self.world.cluster;
        let written = match &status.subject {
            Subject::NetworkPolicy(name) => {
                let held = HeldStatus {
                    policy_uid: status.uid.clone(),
                    owners: vec![status.uid],
                    conditions,
                    nodes: status.nodes,
                };
                cluster.policy_statuses.insert(name.clone(), held);
                return;
            }
            Subject::ClusterNetworkPolicy(name) => cluster.cluster_network_policies.get_mut(name),
            Subject::DataplaneConfig(name) => cluster
                .dataplane_configs
                .get_mut(name)
                .map(|config| &mut config.written),
            Subject::FlowLogPolicy(name) => cluster.flow_log_policies.get_mut(name),
        };
        if let Some(written) = written {
            written.conditions = conditions;
            written.nodes = status.nodes;
        }
    }
}
