//! An agent whose loop gives addresses and keeps them on disk, and has no kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use weir_agent::cni::server::{Reply, Request, RequestKind, serve};
use weir_agent::cni::store::{Attachment, Store};
use weir_agent::cni::{attached, host_ifname, ipam};
use weir_agent::metrics::{Build, Metrics};
use weir_agent::workloads::{HOST_MAC, Mac, PodInterface};
use weir_cni::CniError;
use weir_cni::error::code;
use weir_cni::protocol::AttachmentId;

pub(crate) struct Agent {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    attached: BTreeSet<AttachmentId>,
    refusal: Option<CniError>,
}

fn metrics() -> Arc<Metrics> {
    let build = Build {
        version: "0.1.0",
        abi_version: 1,
    };
    Arc::new(Metrics::new(build).expect("metrics"))
}

pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("run/cni.sock")
}

impl Agent {
    /// Serves once this returns.
    pub(crate) fn start(dir: &Path, pod_cidrs: &[&str]) -> Agent {
        let (socket, state) = (socket(dir), dir.join("state"));
        let pod_cidrs = pod_cidrs
            .iter()
            .map(|cidr| cidr.parse().expect("a range"))
            .collect();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = oneshot::channel();
        let (started, ready) = std::sync::mpsc::channel();
        let node = Node {
            store: Store::open(&state).expect("opened"),
            pod_cidrs,
            shared: Arc::clone(&shared),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let requests = serve(&socket, metrics()).expect("served");
                started.send(()).expect("awaited");
                node.run(requests, stopped).await;
            });
        });
        ready.recv().expect("started");
        Agent { stop, thread, shared }
    }

    pub(crate) fn stop(self) {
        self.stop.send(()).expect("running");
        self.thread.join().expect("joined");
    }

    pub(crate) fn attached(&self) -> BTreeSet<AttachmentId> {
        self.shared.lock().expect("sound").attached.clone()
    }

    /// From then on everything fails.
    pub(crate) fn refuse(&self, error: CniError) {
        self.shared.lock().expect("sound").refusal = Some(error);
    }

    /// Waits for what happens by itself.
    pub(crate) fn until(&self, condition: impl Fn(&BTreeSet<AttachmentId>) -> bool) {
        let start = Instant::now();
        while !condition(&self.attached()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", self.attached());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Node {
    store: Store,
    pod_cidrs: Vec<ipnet::IpNet>,
    shared: Arc<Mutex<Shared>>,
}

impl Node {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut stopped: oneshot::Receiver<()>) {
        self.publish();
        loop {
            let request = tokio::select! {
                _ = &mut stopped => return,
                request = requests.recv() => request.expect("the server goes on"),
            };
            let refusal = self.shared.lock().expect("sound").refusal.clone();
            let answer = refusal.map_or_else(|| self.serve(request.kind), Err);
            self.publish();
            request.reply.send(answer).expect("the plugin waits");
        }
    }

    fn publish(&self) {
        self.shared.lock().expect("sound").attached = self.store.attachments().keys().cloned().collect();
    }

    fn serve(&mut self, kind: RequestKind) -> Result<Reply, CniError> {
        match kind {
            RequestKind::Add {
                container_id,
                netns,
                ifname,
                pod,
                pod_uid,
            } => {
                let id = AttachmentId { container_id, ifname };
                if !self.store.attachments().contains_key(&id) {
                    let addresses =
                        ipam::allocate(&self.pod_cidrs, &self.store.in_use(), self.store.recently_freed())?;
                    let attachment = Attachment {
                        pod,
                        pod_uid,
                        netns,
                        ifname: id.ifname.clone(),
                        host_ifname: host_ifname(&id.container_id, &id.ifname),
                        addresses,
                        mtu: 1450,
                        created: "2026-01-02T03:04:05Z".parse().expect("a time"),
                    };
                    self.store.insert(id.clone(), attachment).expect("written");
                }
                self.attached(&id)
            }
            RequestKind::Del { container_id, ifname } => {
                let id = AttachmentId { container_id, ifname };
                self.store.remove(&id).expect("removed");
                Ok(Reply::Done)
            }
            RequestKind::Check {
                container_id, ifname, ..
            } => self.attached(&AttachmentId { container_id, ifname }),
            RequestKind::Gc { valid } => {
                let all: BTreeSet<AttachmentId> = self.store.attachments().keys().cloned().collect();
                for id in all.difference(&valid) {
                    self.store.remove(id).expect("removed");
                }
                Ok(Reply::Done)
            }
            RequestKind::Status => Ok(Reply::Done),
        }
    }

    fn attached(&self, id: &AttachmentId) -> Result<Reply, CniError> {
        let attachment = self.store.attachments().get(id).ok_or_else(|| {
            let msg = format!("{} {} was never added", id.container_id, id.ifname);
            CniError::new(code::UNKNOWN_CONTAINER, msg)
        })?;
        let interface = PodInterface {
            host_ifindex: 7,
            host_mac: HOST_MAC,
            pod_ifindex: 2,
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        };
        Ok(Reply::Attached(attached(&attachment.link(), &interface)))
    }
}
