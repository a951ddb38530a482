//! Whatever the runtime sends, the plugin answers in the form that the specification wants.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weir_cni::agent::Unreachable;
use weir_cni::plugin::{self, Outcome};
use weir_cni::protocol::{Answer, Request};

const VARIABLES: [&str; 6] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
];

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["eth0", "10.0.0.5/32", "/run/netns/n", "c1"]).prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "name",
        "sandbox",
        "address",
        "interface",
        "interfaces",
        "ips",
        "containerID",
        "ifname",
        "type",
    ]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..4).prop_map(|object| {
                let object: Map<String, Value> = object
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect();
                Value::from(object)
            }),
        ]
    })
}

/// A good configuration with up to four keys replaced, or bytes of any kind.
fn stdin() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "cniVersion",
        "name",
        "type",
        "socket",
        "prevResult",
        "ipam",
        "ipMasq",
        "runtimeConfig",
        "cni.dev/valid-attachments",
        "other",
    ]);
    let version = prop::sample::select(vec!["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let config =
        (version, prop::collection::btree_map(key, json_value(), 0..4)).prop_map(|(version, changes)| {
            let mut config = json!({
                "cniVersion": version,
                "name": "weir",
                "type": "weir-cni",
                "socket": "/nonexistent/weir/cni.sock",
            });
            for (key, value) in changes {
                config[key] = value;
            }
            config.to_string().into_bytes()
        });
    prop_oneof![4 => config, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

/// A good environment with some variables replaced or taken away.
fn environment() -> impl Strategy<Value = BTreeMap<&'static str, OsString>> {
    let value = prop_oneof![
        prop::collection::vec(1u8.., 0..24).prop_map(OsString::from_vec),
        "[A-Za-z0-9=;._/-]{0,24}".prop_map(OsString::from),
        "(K8S_POD_(NAMESPACE|NAME|UID)=[a-z0-9.-]{0,4};?){0,4}".prop_map(OsString::from),
    ];
    let changes = prop::collection::btree_map(
        prop::sample::select(VARIABLES[1..].to_vec()),
        prop::option::of(value),
        0..3,
    );
    let command = prop_oneof![
        9 => prop::sample::select(COMMANDS.to_vec()).prop_map(OsString::from),
        1 => prop::collection::vec(1u8.., 0..6).prop_map(OsString::from_vec),
    ];
    (command, changes).prop_map(|(command, changes)| {
        let mut variables = BTreeMap::from([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1".into()),
            ("CNI_NETNS", "/proc/self/ns/uts".into()),
            ("CNI_IFNAME", "eth0".into()),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=8c7a".into(),
            ),
            ("CNI_PATH", "/opt/cni/bin".into()),
        ]);
        for (name, value) in changes {
            match value {
                Some(value) => variables.insert(name, value),
                None => variables.remove(name),
            };
        }
        variables
    })
}

/// What an agent may say, as bytes on its socket may make it.
fn answer() -> impl Strategy<Value = Option<Answer>> {
    let attached = json!({ "attached": {
        "host": { "name": "weir0", "mac": "02:57:45:49:52:01" },
        "pod": { "name": "eth0", "mac": "02:00:00:00:00:02" },
        "mtu": 1450,
        "addresses": [{ "address": "10.0.0.5", "gateway": "169.254.1.1" }],
    } });
    let answers = [
        attached,
        json!("done"),
        json!({ "failed": { "code": 11, "msg": "later" } }),
    ];
    let answers = answers.map(|answer| Some(serde_json::from_value(answer).expect("an answer")));
    prop::sample::select(answers.into_iter().chain([None]).collect::<Vec<_>>())
}

/// Runs the plugin. What it would send must be a request that an agent understands.
fn run(
    variables: &BTreeMap<&'static str, OsString>,
    stdin: &[u8],
    answer: Option<Answer>,
) -> (Outcome, Option<Request>) {
    let mut sent = None;
    let outcome = plugin::run(
        |name| variables.get(name).cloned(),
        stdin,
        |socket, line, _| {
            assert_eq!(line.last(), Some(&b'\n'));
            sent = Some(Request::parse(&line).expect("a request"));
            answer.ok_or_else(|| Unreachable::Away {
                socket: PathBuf::from(socket),
                source: io::ErrorKind::NotFound.into(),
            })
        },
    );
    (outcome, sent)
}

/// Success says nothing, or a result; failure says a version, a code and a message.
fn has_its_form(outcome: &Outcome) -> Result<(), TestCaseError> {
    if outcome.success && outcome.stdout.is_empty() {
        return Ok(());
    }
    let value: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    prop_assert!(value["cniVersion"].is_string(), "{value}");
    if outcome.success {
        prop_assert!(
            value["ips"].is_array() || value["supportedVersions"].is_array(),
            "{value}"
        );
    } else {
        prop_assert!(value["code"].as_u64().is_some_and(|code| code > 0), "{value}");
        prop_assert!(
            value["msg"].as_str().is_some_and(|msg| !msg.is_empty()),
            "{value}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_call_is_answered(variables in environment(), stdin in stdin(), answer in answer()) {
        let (outcome, _) = run(&variables, &stdin, answer);
        has_its_form(&outcome)?;
    }

    /// That a call succeeds means that the agent was asked, but for `VERSION`.
    #[test]
    fn nothing_succeeds_by_itself(variables in environment(), stdin in stdin(), answer in answer()) {
        let (outcome, sent) = run(&variables, &stdin, answer);
        let is_version = variables["CNI_COMMAND"] == "VERSION";
        prop_assert!(!outcome.success || is_version || sent.is_some(), "{outcome:?}");
    }

    /// Random bytes everywhere.
    #[test]
    fn noise_is_answered(
        variables in prop::collection::btree_map(
            prop::sample::select(VARIABLES.to_vec()),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(OsString::from_vec),
            0..6,
        ),
        stdin in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (outcome, sent) = run(&variables, &stdin, None);
        has_its_form(&outcome)?;
        prop_assert_eq!(sent, None);
    }
}
