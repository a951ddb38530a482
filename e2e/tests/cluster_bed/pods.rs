//! Pods of a test.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_e2e::{images, kubernetes};

use super::{Bed, PATIENCE};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pod {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The controller's kind and name.
    pub(crate) workload: Option<(String, String)>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Pod {
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let owner = object["metadata"]["ownerReferences"].get(0);
        Self {
            node: text(&object["spec"]["nodeName"]),
            name: text(&object["metadata"]["name"]),
            namespace: text(&object["metadata"]["namespace"]),
            workload: owner.map(|owner| (text(&owner["kind"]), text(&owner["name"]))),
            addresses: addresses(object),
        }
    }

    /// The label of a pod that [`Bed::one_on_each_node`] made.
    pub(crate) fn app(&self) -> &str {
        self.workload.as_ref().map_or("", |(_, name)| name)
    }
}

/// Of a pod that may not have any yet.
pub(crate) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let addresses = pod["status"]["podIPs"].as_array();
    addresses
        .into_iter()
        .flatten()
        .map(|address| {
            let text = address["ip"].as_str().expect("a text");
            text.parse().expect("an address")
        })
        .collect()
}

impl Bed {
    /// A namespace that is new.
    pub(crate) fn namespace(&self, name: &str) {
        self.delete(&["namespace", name]);
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }

    /// A pod of each label `app` on each node. They do nothing: tests use their network.
    pub(crate) fn one_on_each_node(&self, namespace: &str, apps: &[&str]) {
        for app in apps {
            self.apply(&daemon_set(namespace, app));
        }
        for app in apps {
            let object = format!("daemonset/{app}");
            kubernetes::roll_out(&self.cluster, namespace, &object, PATIENCE).expect("rolled out");
        }
    }
}

fn daemon_set(namespace: &str, app: &str) -> Value {
    let labels = json!({ "app": app });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": app, "namespace": namespace },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "pause", "image": images::PAUSE, "imagePullPolicy": "Never",
                    }],
                },
            },
        },
    })
}
