//! Work inside another network namespace.
//!
//! A thread that has entered a namespace is never given back: tokio's threads are shared, and the next task
//! on it would find itself in the pod.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

use super::LinkError;

/// A network namespace, held open: it stays for as long as this does.
#[derive(Debug)]
pub(super) struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens the namespace at `path`. The agent's own is refused: nothing in there is a pod's.
    pub(super) fn open(path: &Path) -> Result<Netns, LinkError> {
        let failed = |source| LinkError::Netns {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let is = file.metadata().map_err(failed)?;
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
        if (is.dev(), is.ino()) == (own.dev(), own.ino()) {
            return Err(LinkError::NodeNetns { path: path.into() });
        }
        Ok(Netns {
            path: path.into(),
            file,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread of its own inside the namespace, with the caller's runtime at hand for the
    /// sockets it opens. They keep belonging to the namespace after the thread has ended.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, LinkError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, LinkError> + Send + 'static,
    {
        let failed = |source| LinkError::Netns {
            path: self.path.clone(),
            source,
        };
        let file = self.file.try_clone().map_err(failed)?;
        let path = self.path.clone();
        let runtime = Runtime::current();
        let (send, receive) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("pod-netns".into())
            .spawn(move || {
                let _context = runtime.enter();
                let entered = setns(file, CloneFlags::CLONE_NEWNET);
                let result = match entered {
                    Ok(()) => work(),
                    Err(errno) => Err(LinkError::Netns {
                        path,
                        source: errno.into(),
                    }),
                };
                // The receiver is gone only when the caller was cancelled, and then nobody wants the result.
                drop(send.send(result));
            });
        thread.map_err(failed)?;
        receive
            .await
            .unwrap_or_else(|_| Err(failed(std::io::Error::other("the thread inside it ended early"))))
    }
}
