//! The kinds that the operator writes for the nodes and for people to read: their form on the wire.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_api::address_slice::{NodeAddresses, PodAddresses};
use weir_api::dataplane_config::{DataplaneSettings, NetworkMode, NetworkSettings};
use weir_api::identity_slice::{Identity, NamespaceIdentities};
use weir_api::node_dataplane::{AgentInfo, NodeDataplaneStatus, RefusedSetting, Relevance};
use weir_api::{AddressSliceSpec, IdentitySliceSpec, NodeDataplaneSpec, PolicyStatusSpec};

#[test]
fn an_identity_slice() {
    let spec = IdentitySliceSpec {
        revision: 3,
        last_number: Some(u32::MAX),
        namespaces: vec![NamespaceIdentities {
            name: "shop".to_owned(),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            identities: vec![Identity {
                number: 1,
                pod_labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
                namespace_labels: BTreeMap::new(),
                named_ports: BTreeMap::from([("http".to_owned(), BTreeSet::from(["TCP/8080".to_owned()]))]),
            }],
        }],
    };
    let written = json!({
        "revision": 3,
        "lastNumber": u32::MAX,
        "namespaces": [{ "name": "shop", "labels": { "team": "a" }, "identities": [{
            "number": 1, "podLabels": { "app": "web" }, "namespaceLabels": {}, "namedPorts": { "http": ["TCP/8080"] },
        }] }],
    });
    assert_form(&spec, &written);
}

#[test]
fn an_address_slice() {
    let spec = AddressSliceSpec {
        revision: 3,
        namespace: Some("shop".to_owned()),
        pods: vec![PodAddresses {
            name: "web-0".to_owned(),
            node: "n1".to_owned(),
            identity: 1,
            addresses: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
        }],
        nodes: vec![NodeAddresses {
            name: "n1".to_owned(),
            addresses: vec!["192.0.2.1".to_owned()],
            pod_cidrs: vec!["10.0.0.0/24".to_owned()],
        }],
    };
    let written = json!({
        "revision": 3,
        "namespace": "shop",
        "pods": [{ "name": "web-0", "node": "n1", "identity": 1, "addresses": ["10.0.0.1", "fd00::1"] }],
        "nodes": [{ "name": "n1", "addresses": ["192.0.2.1"], "podCIDRs": ["10.0.0.0/24"] }],
    });
    assert_form(&spec, &written);
}

#[test]
fn a_node_dataplane() {
    let network = NetworkSettings {
        mode: Some(NetworkMode::Vxlan),
        ..NetworkSettings::default()
    };
    let spec = NodeDataplaneSpec {
        address_book: 3,
        relevance: Relevance {
            pod_labels: BTreeSet::from(["app".to_owned()]),
            namespace_labels: BTreeSet::from(["team".to_owned()]),
            named_ports: BTreeSet::from(["http".to_owned()]),
        },
        covers: vec![1, 2],
        policies: vec![json!({ "any": ["shape"] })],
        flow_logs: BTreeMap::from([("all".to_owned(), json!({ "any": 1 }))]),
        settings: DataplaneSettings {
            network: Some(network),
            ..DataplaneSettings::default()
        },
    };
    let written = json!({
        "addressBook": 3,
        "relevance": { "podLabels": ["app"], "namespaceLabels": ["team"], "namedPorts": ["http"] },
        "covers": [1, 2],
        "policies": [{ "any": ["shape"] }],
        "flowLogs": { "all": { "any": 1 } },
        "settings": { "network": { "mode": "Vxlan" } },
    });
    assert_form(&spec, &written);
}

#[test]
fn the_status_of_a_node_dataplane() {
    let status = NodeDataplaneStatus {
        programmed_generation: Some(4),
        conditions: vec![],
        agent: Some(AgentInfo {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
        }),
        policies: Some(2),
        pods: Some(0),
        refused: vec![RefusedSetting {
            field: "spec.network.mode".to_owned(),
            message: "no VXLAN".to_owned(),
        }],
    };
    let written = json!({
        "programmedGeneration": 4,
        "agent": { "version": "0.1.0", "kernel": "6.1.0" },
        "policies": 2,
        "pods": 0,
        "refused": [{ "field": "spec.network.mode", "message": "no VXLAN" }],
    });
    assert_form(&status, &written);
    assert_form(&NodeDataplaneStatus::default(), &json!({}));
}

#[test]
fn a_policy_status() {
    let spec = PolicyStatusSpec {
        policy_uid: "a-b-c".to_owned(),
    };
    assert_form(&spec, &json!({ "policyUID": "a-b-c" }));
}

#[track_caller]
fn assert_form<T>(value: &T, written: &Value)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(&serde_json::to_value(value).expect("serializable"), written);
    assert_eq!(
        &serde_json::from_value::<T>(written.clone()).expect("valid"),
        value
    );
}
