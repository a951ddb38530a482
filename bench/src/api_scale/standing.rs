//! What the operator tells of the policies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_api::PolicyStatus;

/// The NetworkPolicies, `namespace/name`, of which the API says that they are programmed. The watch ends when dropped.
#[derive(Debug)]
pub(super) struct Standing {
    programmed: watch::Receiver<Arc<BTreeSet<String>>>,
    _task: JoinSet<()>,
}

impl Standing {
    pub(super) fn watch(client: &Client) -> Self {
        let (sender, programmed) = watch::channel(Arc::default());
        let mut task = JoinSet::new();
        task.spawn(look(client.clone(), sender));
        Self {
            programmed,
            _task: task,
        }
    }

    pub(super) async fn until(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&BTreeSet<String>) -> bool,
    ) -> Result<()> {
        let mut programmed = self.programmed.clone();
        let seen = tokio::time::timeout(patience, programmed.wait_for(|it| holds(it))).await;
        match seen {
            Ok(seen) => {
                seen?;
                Ok(())
            }
            Err(_) => bail!(
                "not within {} s: {what}; {} policies are programmed",
                patience.as_secs(),
                self.programmed.borrow().len()
            ),
        }
    }
}

async fn look(client: Client, programmed: watch::Sender<Arc<BTreeSet<String>>>) {
    let api = Api::<DynamicObject>::all_with(client, &ApiResource::erase::<PolicyStatus>(&()));
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    loop {
        let object = match events.try_next().await {
            Ok(Some(object)) => object,
            Ok(None) => return,
            // It is started again.
            Err(_) => continue,
        };
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let is_programmed = says_programmed(&object);
        if programmed.borrow().contains(&name) != is_programmed {
            programmed.send_modify(|all| {
                let all = Arc::make_mut(all);
                if is_programmed {
                    all.insert(name);
                } else {
                    all.remove(&name);
                }
            });
        }
    }
}

fn says_programmed(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Programmed" && condition["status"] == "True")
}
