//! Events on objects: what a person should see who looks at one.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use weir_policy::snapshot::ObjectName;

use crate::statuses::{Outcome, Status, Subject};

/// How many events wait at most; what is more is left out.
const QUEUE: usize = 256;

/// Hands events to a task that writes them.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<(Event, ObjectReference)>);

impl Events {
    /// `instance` is the name of this replica. The task ends with the last handle.
    #[must_use]
    pub fn start(client: Client, instance: &str) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let reporter = Reporter {
            controller: "weir-operator".to_owned(),
            instance: Some(instance.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((event, object)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event, &object).await {
                    tracing::debug!(%error, "an event could not be written");
                }
            }
        });
        Self(sender)
    }

    /// Tells of an outcome that has changed.
    pub fn tell(&self, status: &Status, outcome: &Outcome) {
        let good = outcome.holds != (outcome.condition == "Degraded");
        let event = Event {
            type_: if good {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: reason(outcome),
            note: Some(shortened(&outcome.message)),
            action: outcome.condition.to_owned(),
            secondary: None,
        };
        // An event that finds no room is left out: the condition says the same.
        let _ = self.0.try_send((event, reference(status)));
    }
}

/// The reasons of events are read without the condition that they belong to.
fn reason(outcome: &Outcome) -> String {
    match (outcome.condition, outcome.holds) {
        ("Accepted", false) => outcome.reason.clone(),
        ("Degraded", true) => outcome.reason.clone(),
        ("Degraded", false) => "Recovered".to_owned(),
        (condition, true) => condition.to_owned(),
        (_, false) => outcome.reason.clone(),
    }
}

/// The API server takes notes of less than 1024 bytes.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(1000);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn reference(status: &Status) -> ObjectReference {
    let (api_version, kind, namespace, name) = match &status.subject {
        Subject::NetworkPolicy(ObjectName { namespace, name }) => (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            Some(namespace.clone()),
            name,
        ),
        Subject::ClusterNetworkPolicy(name) => (
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            None,
            name,
        ),
        Subject::DataplaneConfig(name) => ("dataplane.weir.dev/v1alpha1", "DataplaneConfig", None, name),
        Subject::FlowLogPolicy(name) => ("dataplane.weir.dev/v1alpha1", "FlowLogPolicy", None, name),
    };
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace,
        name: Some(name.clone()),
        uid: Some(status.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Whether a change of the outcome is worth an event. To be on the way is not.
#[must_use]
pub fn is_worth_telling(outcome: &Outcome, before: Option<&str>) -> bool {
    let is_first = before.is_none();
    let changed = before != Some(if outcome.holds { "True" } else { "False" });
    match outcome.condition {
        "Accepted" => changed && !(is_first && outcome.holds),
        "Programmed" => changed && (outcome.holds || outcome.reason != "Pending"),
        _ => changed && (!is_first || outcome.holds),
    }
}
