//! The interfaces of this node's pods: connected before their policy is in the kernel, opened after it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use weir_policy::snapshot::PodId;

use crate::manifests::LocalPod;
use crate::numbers::digest;
use crate::workloads::{self, LinkError, PodInterface, PodLink};

/// Links that are ours, by pod.
#[derive(Debug, Default)]
pub struct NodeLinks {
    ready: BTreeMap<PodId, Link>,
    /// Errors that were told already.
    told: BTreeMap<PodId, String>,
}

#[derive(Debug, Clone)]
struct Link {
    wanted: PodLink,
    open: bool,
}

const POD_INTERFACE: &str = "eth0";

impl NodeLinks {
    /// Makes the interface of every pod, closed. A pod for which that fails is left out, and tried again next time.
    pub async fn prepare(&mut self, pods: &[LocalPod], mtu: u32) -> BTreeMap<PodId, PodInterface> {
        let mut interfaces = BTreeMap::new();
        for pod in pods {
            let wanted = PodLink {
                netns: pod.netns.clone(),
                host_ifname: host_ifname(&pod.id),
                pod_ifname: POD_INTERFACE.to_owned(),
                addresses: pod.addresses.clone(),
                mtu,
            };
            match workloads::prepare(&wanted).await {
                Ok(interface) => {
                    self.told.remove(&pod.id);
                    let open = self
                        .ready
                        .get(&pod.id)
                        .is_some_and(|link| link.open && link.wanted == wanted);
                    self.ready.insert(pod.id.clone(), Link { wanted, open });
                    interfaces.insert(pod.id.clone(), interface);
                }
                Err(error) => self.tell(&pod.id, "cannot connect the pod; it has no network", &error),
            }
        }
        interfaces
    }

    /// Lets traffic to those whose policy is in the kernel. Whether that went well for all.
    pub async fn open(&mut self) -> bool {
        let mut failed = Vec::new();
        for (id, link) in self.ready.iter_mut().filter(|(_, link)| !link.open) {
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

    /// Removes the interfaces of pods that are gone, also of those that went while no agent ran.
    pub async fn retain(&mut self, pods: &BTreeSet<PodId>) {
        self.ready.retain(|id, _| pods.contains(id));
        self.told.retain(|id, _| pods.contains(id));
        let wanted: BTreeSet<String> = pods.iter().map(host_ifname).collect();
        let there = match workloads::list().await {
            Ok(there) => there,
            Err(error) => {
                warn!(%error, "cannot look for interfaces of pods that are gone");
                return;
            }
        };
        for name in there.difference(&wanted) {
            match workloads::disconnect(name).await {
                Ok(_) => info!(interface = name, "pod disconnected"),
                Err(error) => {
                    warn!(interface = name, %error, "cannot remove the interface of a pod that is gone")
                }
            }
        }
    }

    fn tell(&mut self, id: &PodId, message: &str, error: &LinkError) {
        let error = error.to_string();
        if self.told.get(id) != Some(&error) {
            warn!(pod = %id, error, "{message}");
            self.told.insert(id.clone(), error);
        }
    }
}

/// Name of the node's end: follows from the pod's, so that a restarted agent finds it.
fn host_ifname(id: &PodId) -> String {
    let [high, _] = digest([id.namespace.as_str(), id.name.as_str()]);
    format!("weir{:011x}", high & 0x0fff_ffff_ffff)
}
