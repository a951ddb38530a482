//! The socket that the plugin talks to.
//!
//! Each connection brings one request. It is handed to the agent's loop with a place for the answer; the loop answers
//! every request, in any order. Whoever is not root cannot ask.

mod listen;
mod replay;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use weir_cni::deletions;
use weir_cni::environment::{check_container_id, check_ifname};
use weir_cni::protocol::{self, Answer, MAX_REQUEST, Verb};
use weir_policy::snapshot::PodId;

use super::{Attached, AttachmentId, CniError, code};
use crate::metrics::Metrics;

/// What the runtime wants. Every kind may come again, and must then be answered as before.
#[derive(Debug)]
pub struct Request {
    pub kind: RequestKind,
    /// `reply.is_closed()` tells that nobody waits any more: an `Add` need not be done then, for the runtime counts it as
    /// failed and sends a `Del`. A `Del` is to be done all the same.
    pub reply: oneshot::Sender<Result<Reply, CniError>>,
}

/// The strings have the form that the CNI specification and the kernel want; that a namespace is there is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// To be answered with [`Reply::Attached`] once the pod may send.
    Add {
        container_id: String,
        netns: PathBuf,
        ifname: String,
        pod: PodId,
        /// A static pod's is not the one that its mirror in the API has.
        pod_uid: String,
    },
    /// Succeeds where nothing is there. The namespace may be gone.
    Del { container_id: String, ifname: String },
    /// To be answered with [`Reply::Attached`] where the kernel holds what it should, with
    /// [`code::UNKNOWN_CONTAINER`] for what was never added, and with [`code::DIFFERS`] otherwise. The plugin compares the
    /// answer with what the runtime was told.
    Check {
        container_id: String,
        netns: PathBuf,
        ifname: String,
    },
    /// Everything that is not in it is to go.
    Gc { valid: BTreeSet<AttachmentId> },
    /// Whether an `Add` could be served. Otherwise [`code::NOT_AVAILABLE`], or [`code::LIMITED_CONNECTIVITY`] where the
    /// pods that run may lack connections too.
    Status,
}

impl RequestKind {
    /// As a metric's label.
    const fn verb(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Del { .. } => "del",
            Self::Check { .. } => "check",
            Self::Gc { .. } => "gc",
            Self::Status => "status",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Add` and `Check`; see [`attached`](super::attached).
    Attached(Attached),
    /// To the others.
    Done,
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ServeError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// How many requests wait for the loop. The rest wait in their connections.
const QUEUE: usize = 64;

/// How many connections are open at a time; others wait to be accepted. An `ADD` holds one until the pod's policy is in
/// the kernel, and there are some hundred pods on a node at most.
const MAX_CONNECTIONS: usize = 512;

/// For the plugin to send its request, and to take its answer.
const TRANSFER: Duration = Duration::from_secs(10);

/// How often the notes of deletions are looked for.
const REPLAY_EVERY: Duration = Duration::from_secs(10);

/// After a connection could not be accepted, as when there are no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens at `socket_path`, replacing what an agent before has left there, until the receiver is dropped. Needs a
/// tokio runtime around it.
///
/// The notes that the plugin left while no agent answered come as `Del` requests like all others, at the start and
/// every ten seconds; they are tried again until one is answered with success.
pub fn serve(socket_path: &Path, metrics: Arc<Metrics>) -> Result<mpsc::Receiver<Request>, ServeError> {
    serve_every(socket_path, metrics, REPLAY_EVERY)
}

fn serve_every(
    socket_path: &Path,
    metrics: Arc<Metrics>,
    replay_every: Duration,
) -> Result<mpsc::Receiver<Request>, ServeError> {
    let notes = deletions::directory(socket_path);
    listen::create_directory(&notes)?;
    let listener = listen::listen(socket_path)?;
    let (send, receive) = mpsc::channel(QUEUE);
    tokio::spawn(replay::replay(notes, send.clone(), replay_every));
    tokio::spawn(accept(listener, send, metrics));
    Ok(receive)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>, metrics: Arc<Metrics>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = requests.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(
                    stream,
                    requests.clone(),
                    Arc::clone(&metrics),
                    slot,
                ));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection of the CNI plugin");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve_connection(
    stream: UnixStream,
    requests: mpsc::Sender<Request>,
    metrics: Arc<Metrics>,
    _slot: Option<OwnedSemaphorePermit>,
) {
    if let Err(error) = serve_peer(stream, &requests, &metrics).await {
        debug!(%error, "connection of the CNI plugin");
    }
}

async fn serve_peer(
    mut stream: UnixStream,
    requests: &mpsc::Sender<Request>,
    metrics: &Metrics,
) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if !may_ask(uid, nix::unistd::geteuid().as_raw()) {
        warn!(uid, "refused a connection to the socket of the CNI plugin");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let answer = match read_request(&mut read).await? {
        Ok(kind) => {
            let (verb, asked) = (kind.verb(), Instant::now());
            let answer = answer(kind, &mut read, requests).await;
            let succeeded = matches!(answer, Some(Answer::Attached(_) | Answer::Done));
            metrics.observe_cni_request(verb, succeeded, asked.elapsed());
            match answer {
                Some(answer) => answer,
                None => return Ok(()),
            }
        }
        Err(error) => Answer::Failed(error),
    };
    let line = protocol::line(&answer)?;
    timeout(TRANSFER, write.write_all(&line)).await??;
    Ok(())
}

/// Root is whom the runtime runs the plugin as. The agent is root too, but for tests.
fn may_ask(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

type Connection<'a> = BufReader<tokio::net::unix::ReadHalf<'a>>;

/// The outer error is for a plugin that takes no answer any more.
async fn read_request(read: &mut Connection<'_>) -> io::Result<Result<RequestKind, CniError>> {
    let mut line = Vec::new();
    let mut limited = read.take(MAX_REQUEST);
    timeout(TRANSFER, limited.read_until(b'\n', &mut line)).await??;
    if line.last() == Some(&b'\n') {
        return Ok(protocol::Request::parse(&line).and_then(|request| kind(request.verb)));
    }
    if line.len() as u64 >= MAX_REQUEST {
        return Ok(Err(CniError::new(
            code::DECODING_FAILURE,
            format!("the plugin's request has more than {MAX_REQUEST} bytes"),
        )));
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Checks again what the plugin has checked: file names are made of it.
fn kind(verb: Verb) -> Result<RequestKind, CniError> {
    match verb {
        Verb::Add {
            container_id,
            netns,
            ifname,
            pod,
        } => {
            check(&container_id, &ifname)?;
            Ok(RequestKind::Add {
                container_id,
                netns,
                ifname,
                pod: PodId {
                    namespace: pod.namespace,
                    name: pod.name,
                },
                pod_uid: pod.uid,
            })
        }
        Verb::Del { container_id, ifname } => {
            check(&container_id, &ifname)?;
            Ok(RequestKind::Del { container_id, ifname })
        }
        Verb::Check {
            container_id,
            netns,
            ifname,
        } => {
            check(&container_id, &ifname)?;
            Ok(RequestKind::Check {
                container_id,
                netns,
                ifname,
            })
        }
        Verb::Gc { valid } => Ok(RequestKind::Gc { valid }),
        Verb::Status => Ok(RequestKind::Status),
    }
}

fn check(container_id: &str, ifname: &str) -> Result<(), CniError> {
    let invalid = |msg| CniError::new(code::INVALID_ENVIRONMENT, msg);
    check_container_id(container_id)
        .map_err(|why| invalid(format!("container id {container_id:?} {why}")))?;
    check_ifname(ifname).map_err(|why| invalid(format!("interface name {ifname:?} {why}")))
}

/// Waits for the loop, and no longer than the plugin waits: `None` when that is gone.
async fn answer(
    kind: RequestKind,
    read: &mut Connection<'_>,
    requests: &mpsc::Sender<Request>,
) -> Option<Answer> {
    let (reply, answered) = oneshot::channel();
    if requests.send(Request { kind, reply }).await.is_err() {
        return Some(Answer::Failed(stopping()));
    }
    tokio::select! {
        biased;
        reply = answered => Some(match reply {
            Ok(Ok(Reply::Attached(attached))) => Answer::Attached(attached),
            Ok(Ok(Reply::Done)) => Answer::Done,
            Ok(Err(error)) => Answer::Failed(error),
            Err(_) => Answer::Failed(stopping()),
        }),
        () = closed(read) => None,
    }
}

/// Returns when the plugin has closed its side; what it still sends is none of ours.
async fn closed(read: &mut Connection<'_>) {
    let mut rest = [0; 512];
    while let Ok(1..) = read.read(&mut rest).await {}
}

fn stopping() -> CniError {
    CniError::try_again_later("the node agent is stopping")
}

#[cfg(test)]
mod tests;
