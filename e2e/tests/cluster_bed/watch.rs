//! Objects as they change, with the time at which it was heard of.

use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Bed;

/// An event of a watch: `object` was `type`.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) heard: Instant,
    pub(crate) event: Value,
}

pub(crate) struct Watch {
    kubectl: Child,
    events: Receiver<Event>,
}

impl Bed {
    /// Begins with all objects as they are.
    pub(crate) fn watch(&self, arguments: &[&str]) -> Watch {
        let mut kubectl = self.cluster.kubectl().expect("a cache");
        kubectl
            .args(["get", "--watch", "--output-watch-events", "--output=json"])
            .args(arguments)
            .stdout(Stdio::piped());
        let mut kubectl = kubectl.spawn().expect("kubectl starts");
        let output = BufReader::new(kubectl.stdout.take().expect("its output"));
        let (send, events) = channel();
        thread::spawn(move || {
            let stream = serde_json::Deserializer::from_reader(output).into_iter::<Value>();
            // It breaks off when kubectl is ended.
            for event in stream.map_while(Result::ok) {
                let heard = Instant::now();
                if send.send(Event { heard, event }).is_err() {
                    break;
                }
            }
        });
        Watch { kubectl, events }
    }
}

impl Watch {
    /// What has happened within this time.
    #[track_caller]
    pub(crate) fn next(&self, patience: Duration) -> Option<Event> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("kubectl has ended its watch"),
        }
    }

    /// The first event for whose object the answer is `Some`.
    pub(crate) fn wait<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<(T, Instant), String> {
        let until = Instant::now() + patience;
        let mut last = Value::Null;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(Event { heard, event }) = self.next(left) else {
                return Err(format!("within {patience:?} only: {last:#}"));
            };
            if let Some(found) = wanted(&event["object"]) {
                return Ok((found, heard));
            }
            last = event;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
