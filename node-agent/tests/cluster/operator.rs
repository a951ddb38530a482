//! What the operator would write.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use weir_policy::lower::network_policy;
use weir_policy::model::PolicyRef;

use crate::bed::Bed;

pub(crate) struct Operator {
    /// By the value of the label `app`.
    pub(crate) identities: BTreeMap<String, u32>,
    pub(crate) policies: Vec<Value>,
    pub(crate) settings: Value,
    /// As a slice has them.
    pub(crate) nodes: Value,
    pub(crate) revision: i64,
}

impl Operator {
    pub(crate) fn new() -> Operator {
        Operator {
            identities: BTreeMap::new(),
            policies: Vec::new(),
            settings: json!({}),
            nodes: json!([]),
            revision: 1,
        }
    }

    pub(crate) fn identity(&mut self, app: &str, number: u32) {
        self.identities.insert(app.to_owned(), number);
    }

    /// The slices, and their heads after them.
    pub(crate) fn write_book(&self, bed: &Bed) -> Result<()> {
        let identities: Vec<Value> = self
            .identities
            .iter()
            .map(|(app, number)| json!({"number": number, "podLabels": {"app": app}}))
            .collect();
        let slice = |kind: &str, name: &str, spec: Value| {
            json!({
                "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec
            })
        };
        let revision = self.revision;
        for object in [
            slice(
                "IdentitySlice",
                "a",
                json!({"revision": revision, "namespaces": [{"name": "default", "identities": identities}]}),
            ),
            slice(
                "AddressSlice",
                "nodes",
                json!({"revision": revision, "nodes": self.nodes}),
            ),
            slice(
                "IdentitySlice",
                "head",
                json!({"revision": revision, "lastNumber": 9}),
            ),
            slice("AddressSlice", "head", json!({"revision": revision})),
        ] {
            bed.apply(&object)?;
        }
        Ok(())
    }

    /// Covers every identity.
    pub(crate) fn write_spec(&self, bed: &Bed) -> Result<()> {
        let covers: Vec<u32> = self.identities.values().copied().collect();
        bed.apply(&json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1",
            "kind": "NodeDataplane",
            "metadata": {"name": "n1"},
            "spec": {
                "addressBook": self.revision,
                "relevance": {"podLabels": ["app"]},
                "covers": covers,
                "policies": self.policies,
                "settings": self.settings,
            }
        }))
    }
}

/// Pods labelled `app=server` are reached only by those labelled `app=client`.
pub(crate) fn policy(name: &str, server: &str, client: &str) -> Result<Value> {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": server}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": client}}}]}]
    });
    let reference = PolicyRef::network_policy("default", name);
    let (policy, problems) = network_policy(reference, &BTreeMap::new(), &serde_json::from_value(spec)?);
    anyhow::ensure!(problems.is_empty(), "{problems:?}");
    Ok(serde_json::to_value(policy)?)
}
