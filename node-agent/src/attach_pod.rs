//! What the CNI plugin asks for: pods are attached, and let go.
//!
//! An `ADD` is answered when the pod's policy is in the kernel and its interface is open. Until then it waits here, up
//! to a limit; behind that the pod starts closed or not at all, as the settings say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{info, warn};
use weir_api::dataplane_config::OnPodStartTimeout;
use weir_policy::snapshot::PodId;

use crate::cni::ipam::allocate;
use crate::cni::server::{Reply, Request, RequestKind};
use crate::cni::store::{Attachment, Store, StoreError};
use crate::cni::{AttachmentId, CniError, attached, code, host_ifname};
use crate::node_links::NodeLinks;
use crate::node_plan::Closed;
use crate::workloads;

type Answer = oneshot::Sender<Result<Reply, CniError>>;

/// The attachments of this node, and the requests that wait.
#[derive(Debug)]
pub(crate) struct Attachments {
    store: Store,
    waiting: BTreeMap<AttachmentId, Waiting>,
}

/// What an `ADD` depends on beside the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub pod_cidrs: Vec<IpNet>,
    /// Of pods' interfaces.
    pub mtu: u32,
    pub timeout: Duration,
}

#[derive(Debug)]
struct Waiting {
    answers: Vec<Answer>,
    until: Instant,
    /// The time was over: the pod starts, closed.
    gave_up: bool,
}

impl Attachments {
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let store = Store::open(directory)?;
        for unreadable in store.unreadable().values() {
            warn!(
                path = %unreadable.path.display(),
                why = unreadable.why,
                "the file of an attachment cannot be read; its addresses stay taken"
            );
        }
        Ok(Self {
            store,
            waiting: BTreeMap::new(),
        })
    }

    /// The attachment of each pod; where there are several, a former sandbox was not taken down, and the last counts.
    pub(crate) fn by_pod(&self) -> BTreeMap<PodId, Attachment> {
        let mut by_pod = BTreeMap::<PodId, &Attachment>::new();
        for attachment in self.store.attachments().values() {
            let known = by_pod.entry(attachment.pod.clone()).or_insert(attachment);
            if attachment.created > known.created {
                *known = attachment;
            }
        }
        by_pod
            .into_iter()
            .map(|(pod, attachment)| (pod, attachment.clone()))
            .collect()
    }

    /// Whether traffic may reach a pod's interface once the pod is in the kernel.
    pub(crate) fn may_open(&self, pod: &PodId, closed: bool) -> bool {
        let waits = self.waiting.iter().find(|(id, _)| self.is_of(id, pod));
        waits.is_none_or(|(_, waiting)| !closed || waiting.gave_up)
    }

    /// When the first of the waiting requests has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.values().filter(|waiting| !waiting.gave_up);
        waiting.map(|waiting| waiting.until).min()
    }

    /// Whether there is something for the kernel in it.
    pub(crate) async fn take(
        &mut self,
        request: Request,
        terms: &Terms,
        status: &Result<(), CniError>,
    ) -> bool {
        let Request { kind, reply } = request;
        match kind {
            RequestKind::Add {
                container_id,
                netns,
                ifname,
                pod,
                pod_uid,
            } => {
                let id = AttachmentId { container_id, ifname };
                match self.add(&id, netns, pod, pod_uid, terms).await {
                    Ok(()) => self.wait(id, reply, terms.timeout),
                    Err(error) => {
                        answer(reply, Err(error));
                        return false;
                    }
                }
                true
            }
            RequestKind::Del { container_id, ifname } => {
                let id = AttachmentId { container_id, ifname };
                let deleted = self.delete(&id).await;
                let changed = matches!(deleted, Ok(true));
                answer(reply, deleted.map(|_| Reply::Done));
                changed
            }
            RequestKind::Check {
                container_id,
                netns,
                ifname,
            } => {
                let id = AttachmentId { container_id, ifname };
                answer(reply, self.check(&id, &netns).await);
                false
            }
            RequestKind::Gc { valid } => {
                let (changed, result) = self.keep(&valid).await;
                answer(reply, result.map(|()| Reply::Done));
                changed
            }
            RequestKind::Status => {
                answer(reply, status.clone().map(|()| Reply::Done));
                false
            }
        }
    }

    /// Gives the pod its addresses, on disk, unless it has them.
    async fn add(
        &mut self,
        id: &AttachmentId,
        netns: PathBuf,
        pod: PodId,
        pod_uid: String,
        terms: &Terms,
    ) -> Result<(), CniError> {
        if let Some(there) = self.store.attachments().get(id) {
            if there.pod == pod && there.netns == netns {
                return Ok(());
            }
            self.delete(id).await?;
        }
        let of_pod =
            |(other, attachment): &(&AttachmentId, &Attachment)| attachment.pod == pod && *other != id;
        let others: Vec<AttachmentId> = self
            .store
            .attachments()
            .iter()
            .filter(of_pod)
            .map(|(other, _)| other.clone())
            .collect();
        for other in others {
            if other.container_id == id.container_id {
                return Err(CniError::new(
                    code::INVALID_CONFIG,
                    format!(
                        "the pod has the interface {} already, and Weir connects a pod once",
                        other.ifname
                    ),
                ));
            }
            info!(%pod, container = other.container_id, "the pod has a new sandbox; the former one is let go");
            self.delete(&other).await?;
        }
        let addresses = allocate(
            &terms.pod_cidrs,
            &self.store.in_use(),
            self.store.recently_freed(),
        )
        .map_err(|error| CniError::try_again_later(error.to_string()))?;
        let attachment = Attachment {
            pod,
            pod_uid,
            netns,
            ifname: id.ifname.clone(),
            host_ifname: host_ifname(&id.container_id, &id.ifname),
            addresses,
            mtu: terms.mtu,
            created: Timestamp::now(),
        };
        self.store.insert(id.clone(), attachment).map_err(stored)
    }

    fn wait(&mut self, id: AttachmentId, reply: Answer, timeout: Duration) {
        let waiting = self.waiting.entry(id).or_insert_with(|| Waiting {
            answers: Vec::new(),
            until: Instant::now() + timeout,
            gave_up: false,
        });
        waiting.answers.push(reply);
    }

    /// Takes the interface away, then the addresses. Whether there was anything.
    async fn delete(&mut self, id: &AttachmentId) -> Result<bool, CniError> {
        let name = self.store.attachments().get(id).map_or_else(
            || host_ifname(&id.container_id, &id.ifname),
            |attachment| attachment.host_ifname.clone(),
        );
        let disconnected = workloads::disconnect(&name).await;
        let there = disconnected.map_err(|error| CniError::io_failure(error.to_string()))?;
        if let Some(waiting) = self.waiting.remove(id) {
            waiting.answer(&Err(CniError::try_again_later(
                "the pod was deleted while it waited for its policy",
            )));
        }
        let removed = self.store.remove(id).map_err(stored)?;
        Ok(there || removed.is_some())
    }

    async fn check(&self, id: &AttachmentId, netns: &Path) -> Result<Reply, CniError> {
        let attachment = self
            .store
            .attachments()
            .get(id)
            .ok_or_else(|| CniError::unknown_container(format!("{} was never added", id.container_id)))?;
        let differs = |why: String| CniError::new(code::DIFFERS, why);
        if attachment.netns != netns {
            return Err(differs(format!(
                "the pod was added with the network namespace {}",
                attachment.netns.display()
            )));
        }
        let link = attachment.link();
        let found = workloads::inspect(&link)
            .await
            .map_err(|error| differs(error.to_string()))?;
        match (found.interface, found.missing.first()) {
            (Some(interface), None) => Ok(Reply::Attached(attached(&link, &interface))),
            (None, _) => Err(differs("the pair of interfaces is not there".to_owned())),
            (Some(_), Some(missing)) => Err(differs(format!("it would be mended by: {missing}"))),
        }
    }

    /// Lets go of all attachments but these. Whether anything was let go.
    async fn keep(&mut self, valid: &BTreeSet<AttachmentId>) -> (bool, Result<(), CniError>) {
        let gone: Vec<AttachmentId> = self
            .store
            .attachments()
            .keys()
            .filter(|id| !valid.contains(*id))
            .cloned()
            .collect();
        let mut changed = false;
        for id in gone {
            match self.delete(&id).await {
                Ok(deleted) => changed |= deleted,
                Err(error) => return (changed, Err(error)),
            }
        }
        (changed, Ok(()))
    }

    /// Lets go of what a reboot of the node, or the end of a namespace, has left.
    pub(crate) async fn forget_dead(&mut self) {
        let is_dead = |netns: &Path| {
            std::fs::symlink_metadata(netns).is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        let dead: Vec<AttachmentId> = self
            .store
            .attachments()
            .iter()
            .filter(|(_, attachment)| is_dead(&attachment.netns))
            .map(|(id, _)| id.clone())
            .collect();
        for id in dead {
            match self.delete(&id).await {
                Ok(_) => info!(container = id.container_id, "the pod's network namespace is gone"),
                Err(error) => {
                    warn!(container = id.container_id, %error, "cannot let go of a pod that is gone")
                }
            }
        }
    }

    /// Answers those whose pod is connected, and those whose pod cannot be.
    pub(crate) async fn answer_connected(&mut self, links: &NodeLinks) {
        let mut failed = Vec::new();
        let mut open = Vec::new();
        for id in self.waiting.keys() {
            let Some(attachment) = self.store.attachments().get(id) else {
                continue;
            };
            let pod = &attachment.pod;
            if let (true, Some(interface)) = (links.is_open(pod), links.interface(pod)) {
                open.push((id.clone(), attached(&attachment.link(), &interface)));
            } else if let Some(error) = links.error(pod) {
                failed.push((id.clone(), CniError::io_failure(error)));
            }
        }
        for (id, connected) in open {
            if let Some(waiting) = self.waiting.remove(&id) {
                waiting.answer(&Ok(Reply::Attached(connected)));
            }
        }
        for (id, error) in failed {
            self.fail(&id, error).await;
        }
    }

    /// Deals with those that have waited long enough, and those for which nobody waits any more. `closed` says why a
    /// pod is closed; without it, nothing can be put into the kernel. Whether there is something for the kernel in it.
    pub(crate) async fn expire(
        &mut self,
        now: Instant,
        on_timeout: OnPodStartTimeout,
        closed: Option<&BTreeMap<PodId, Closed>>,
    ) -> bool {
        let over: Vec<AttachmentId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.is_left() || (!waiting.gave_up && waiting.until <= now))
            .map(|(id, _)| id.clone())
            .collect();
        let mut changed = false;
        for id in over {
            let pod = self.store.attachments().get(&id).map(|one| one.pod.clone());
            let why = pod.as_ref().zip(closed).and_then(|(pod, closed)| closed.get(pod));
            let why = why.map_or_else(
                || "its policy could not be written into the kernel in time".to_owned(),
                ToString::to_string,
            );
            let Some(waiting) = self.waiting.get_mut(&id) else {
                continue;
            };
            changed = true;
            if on_timeout == OnPodStartTimeout::StartClosed && closed.is_some() && !waiting.is_left() {
                waiting.gave_up = true;
                let pod = pod.map(|pod| pod.to_string()).unwrap_or_default();
                warn!(pod, why, "the pod starts closed");
            } else {
                self.fail(&id, CniError::try_again_later(why)).await;
            }
        }
        changed
    }

    /// The runtime takes such an attachment for one that was never made.
    async fn fail(&mut self, id: &AttachmentId, error: CniError) {
        let waiting = self.waiting.remove(id);
        if let Err(error) = self.delete(id).await {
            warn!(container = id.container_id, %error, "cannot let go of a pod that was not connected");
        }
        if let Some(waiting) = waiting {
            waiting.answer(&Err(error));
        }
    }

    fn is_of(&self, id: &AttachmentId, pod: &PodId) -> bool {
        self.store
            .attachments()
            .get(id)
            .is_some_and(|attachment| attachment.pod == *pod)
    }
}

impl Waiting {
    fn is_left(&self) -> bool {
        self.answers.iter().all(Answer::is_closed)
    }

    fn answer(self, result: &Result<Reply, CniError>) {
        for reply in self.answers {
            answer(reply, result.clone());
        }
    }
}

/// Who has stopped waiting has a later call to make, which finds everything as it is.
fn answer(reply: Answer, result: Result<Reply, CniError>) {
    let _ = reply.send(result);
}

fn stored(error: StoreError) -> CniError {
    CniError::io_failure(error.to_string())
}
