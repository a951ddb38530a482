//! Doing what the plugin has noted while no agent answered it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use weir_cni::deletions;

use super::{AttachmentId, CniError, Request, RequestKind};

/// Reads the notes at once and then every so often: a plugin that finds no agent may leave its note just after the
/// next agent has looked.
pub(super) async fn replay(directory: PathBuf, requests: mpsc::Sender<Request>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Told once, and again when it is another.
    let mut told = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = requests.closed() => return,
        }
        let trouble = replay_all(&directory, &requests).await.err();
        if let Some(trouble) = trouble.as_ref().filter(|trouble| told.as_ref() != Some(*trouble)) {
            warn!(directory = %directory.display(), "{trouble}");
        }
        told = trouble;
    }
}

/// The first thing that went wrong; the other notes are tried all the same.
async fn replay_all(directory: &std::path::Path, requests: &mpsc::Sender<Request>) -> Result<(), String> {
    let notes = deletions::read(directory).map_err(|error| format!("notes of deletions: {error}"))?;
    let mut result = Ok(());
    for note in notes {
        let done = match delete(&note, requests).await {
            // The loop has stopped; the note stays.
            None => return result,
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) => deletions::remove(directory, &note).map_err(|error| error.to_string()),
        };
        match done {
            Ok(()) => {
                info!(
                    container = note.container_id,
                    interface = note.ifname,
                    "deleted as noted"
                );
            }
            Err(error) => {
                result = result.and(Err(format!(
                    "note of the deletion of {}: {error}",
                    note.container_id
                )));
            }
        }
    }
    result
}

/// `None` if nobody answers.
async fn delete(note: &AttachmentId, requests: &mpsc::Sender<Request>) -> Option<Result<(), CniError>> {
    let (reply, answered) = oneshot::channel();
    let kind = RequestKind::Del {
        container_id: note.container_id.clone(),
        ifname: note.ifname.clone(),
    };
    requests.send(Request { kind, reply }).await.ok()?;
    let answer = answered.await.ok()?;
    Some(answer.map(|_| ()))
}
