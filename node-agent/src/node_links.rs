//! The interfaces of this node's pods: connected before their policy is in the kernel, opened after it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use weir_policy::snapshot::PodId;

use crate::numbers::digest;
use crate::workloads::{self, LinkError, PodInterface, PodLink};

/// Links that are ours, by pod.
#[derive(Debug, Default)]
pub struct NodeLinks {
    ready: BTreeMap<PodId, Link>,
    /// Errors that were told already.
    told: BTreeMap<PodId, String>,
    /// Names of the interfaces that were left when others were last removed.
    retained: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Link {
    wanted: PodLink,
    interface: PodInterface,
    open: bool,
}

pub(crate) const POD_INTERFACE: &str = "eth0";

impl NodeLinks {
    /// Makes the interface of every pod, closed. A pod for which that fails is left out, and tried again next time.
    /// With `mend`, also those are looked at that were right before.
    pub async fn prepare(
        &mut self,
        pods: &BTreeMap<PodId, PodLink>,
        mend: bool,
    ) -> BTreeMap<PodId, PodInterface> {
        let mut interfaces = BTreeMap::new();
        for (id, wanted) in pods {
            let known = self.ready.get(id).filter(|link| link.wanted == *wanted);
            if let Some(link) = known.filter(|_| !mend) {
                interfaces.insert(id.clone(), link.interface);
                continue;
            }
            match workloads::prepare(wanted).await {
                Ok(interface) => {
                    let link = Link {
                        open: known.is_some_and(|link| link.open && link.interface == interface),
                        wanted: wanted.clone(),
                        interface,
                    };
                    self.told.remove(id);
                    self.ready.insert(id.clone(), link);
                    interfaces.insert(id.clone(), interface);
                }
                Err(error) => self.tell(id, "cannot connect the pod; it has no network", &error),
            }
        }
        interfaces
    }

    /// Lets traffic to these pods, whose policy is in the kernel. Whether that went well for all.
    pub async fn open(&mut self, pods: &BTreeSet<PodId>) -> bool {
        let mut failed = Vec::new();
        for (id, link) in self.ready.iter_mut().filter(|(_, link)| !link.open) {
            if !pods.contains(id) {
                continue;
            }
            match workloads::open(&link.wanted).await {
                Ok(_) => {
                    link.open = true;
                    info!(pod = %id, interface = link.wanted.host_ifname, "pod connected");
                }
                Err(error) => failed.push((id.clone(), error)),
            }
        }
        for (id, error) in &failed {
            self.tell(id, "cannot open the pod's interface; it has no network", error);
        }
        failed.is_empty()
    }

    /// Removes all interfaces but those of these pods, also those that were left while no agent ran. With `mend`, also
    /// where nothing has changed.
    pub async fn retain(&mut self, pods: &BTreeMap<PodId, PodLink>, mend: bool) {
        self.ready.retain(|id, _| pods.contains_key(id));
        self.told.retain(|id, _| pods.contains_key(id));
        let wanted: BTreeSet<String> = pods.values().map(|link| link.host_ifname.clone()).collect();
        if wanted == self.retained && !mend {
            return;
        }
        let there = match workloads::list().await {
            Ok(there) => there,
            Err(error) => {
                warn!(%error, "cannot look for interfaces of pods that are gone");
                return;
            }
        };
        let mut all = true;
        for name in there.difference(&wanted) {
            match workloads::disconnect(name).await {
                Ok(_) => info!(interface = name, "pod disconnected"),
                Err(error) => {
                    all = false;
                    warn!(interface = name, %error, "cannot remove the interface of a pod that is gone")
                }
            }
        }
        if all {
            self.retained = wanted;
        }
    }

    /// Whether traffic can reach the pod, as far as its interface goes.
    #[must_use]
    pub fn is_open(&self, id: &PodId) -> bool {
        self.ready.get(id).is_some_and(|link| link.open)
    }

    #[must_use]
    pub fn interface(&self, id: &PodId) -> Option<PodInterface> {
        self.ready.get(id).map(|link| link.interface)
    }

    /// Why the pod is not connected.
    #[must_use]
    pub fn error(&self, id: &PodId) -> Option<&str> {
        self.told.get(id).map(String::as_str)
    }

    fn tell(&mut self, id: &PodId, message: &str, error: &LinkError) {
        let error = error.to_string();
        if self.told.get(id) != Some(&error) {
            warn!(pod = %id, error, "{message}");
            self.told.insert(id.clone(), error);
        }
    }
}

/// Name of the node's end: follows from whose it is, so that a restarted agent finds it.
pub(crate) fn host_ifname<'a>(owner: impl IntoIterator<Item = &'a str>) -> String {
    let [high, _] = digest(owner);
    format!("weir{:011x}", high & 0x0fff_ffff_ffff)
}
