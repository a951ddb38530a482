//! The configuration that the runtime gives on standard input.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::CniError;
use crate::environment::is_identifier;
use crate::error::code;
use crate::protocol::{AttachmentId, DEFAULT_SOCKET};
use crate::version::SpecVersion;

/// The plugin's part of a network configuration list, as libcni makes it for one call.
///
/// ```json
/// { "cniVersion": "1.0.0", "name": "weir", "type": "weir-cni", "socket": "/run/weir/cni.sock" }
/// ```
///
/// `capabilities`, `runtimeConfig`, `args` and `dns` are the specification's and are not looked at. Host ports come
/// from the pod's object and not from `runtimeConfig.portMappings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub version: SpecVersion,
    /// Of the network.
    pub name: String,
    /// Absolute. [`DEFAULT_SOCKET`] unless `socket` says otherwise.
    pub socket: PathBuf,
    /// The result of the plugin before, or of the last `ADD`.
    pub prev_result: Option<Map<String, Value>>,
    /// For `GC`. `None` where the runtime did not say, which is not the same as that there are none.
    pub valid_attachments: Option<BTreeSet<AttachmentId>>,
    /// A key that the plugin has no use for. `DEL` and `GC` go on all the same: what they remove is known.
    pub unsupported: Option<CniError>,
}

/// A JSON object that was not looked into yet.
#[derive(Clone, Debug)]
pub struct Document(Map<String, Value>);

/// The name of the plugin's file, and so `type` in the configuration.
pub const PLUGIN_TYPE: &str = "weir-cni";

/// Bytes of a path that a Unix socket can have (`sun_path` less the zero).
const MAX_SOCKET_PATH: usize = 107;

/// Keys that may be there. Those that start with `cni.dev/` may too.
const KEYS: &[&str] = &[
    "args",
    "capabilities",
    "cniVersion",
    "dns",
    "ipMasq",
    "ipam",
    "name",
    "prevResult",
    "runtimeConfig",
    "socket",
    "type",
];

impl Document {
    /// Fails with code 6.
    pub fn decode(stdin: &[u8]) -> Result<Document, CniError> {
        let failed = |details: String| {
            CniError::new(
                code::DECODING_FAILURE,
                "the configuration on standard input is not a JSON object",
            )
            .with_details(details)
        };
        match serde_json::from_slice(stdin) {
            Ok(Value::Object(object)) => Ok(Document(object)),
            Ok(_) => Err(failed("it is another JSON value".into())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// `cniVersion`, whether the plugin speaks it or not.
    pub fn stated_version(&self) -> Option<&str> {
        self.0.get("cniVersion")?.as_str()
    }

    /// Fails with code 7 and the key, or with code 1 for a version that the plugin does not speak.
    pub fn config(&self) -> Result<Config, CniError> {
        Ok(Config {
            version: self.version()?,
            name: self.name()?,
            socket: self.socket()?,
            prev_result: self.object("prevResult")?.cloned(),
            valid_attachments: self.valid_attachments()?,
            unsupported: self.unsupported(),
        })
    }

    /// A configuration without a version is one of 0.1.0, says the specification.
    fn version(&self) -> Result<SpecVersion, CniError> {
        let text = self.string("cniVersion")?.unwrap_or("0.1.0");
        SpecVersion::parse(text).ok_or_else(|| {
            let spoken: Vec<&str> = SpecVersion::ALL.iter().map(|version| version.as_str()).collect();
            CniError::new(
                code::INCOMPATIBLE_VERSION,
                format!("cniVersion: {text:?} is none of {}", spoken.join(", ")),
            )
        })
    }

    fn name(&self) -> Result<String, CniError> {
        let name = self.string("name")?.ok_or_else(|| invalid("name", "missing"))?;
        if !is_identifier(name) {
            return Err(invalid(
                "name",
                format!("{name:?} is not a letter or digit followed by letters, digits, '_', '.' and '-'"),
            ));
        }
        Ok(name.to_owned())
    }

    fn socket(&self) -> Result<PathBuf, CniError> {
        let path = self.string("socket")?.unwrap_or(DEFAULT_SOCKET);
        if !Path::new(path).is_absolute() || path.contains('\0') {
            return Err(invalid("socket", format!("{path:?} is not an absolute path")));
        }
        if path.len() > MAX_SOCKET_PATH {
            return Err(invalid(
                "socket",
                format!("{path:?} is longer than {MAX_SOCKET_PATH} bytes"),
            ));
        }
        Ok(path.into())
    }

    /// libcni writes them under the specification's key and under an older, wrong one; `null` is no attachment.
    fn valid_attachments(&self) -> Result<Option<BTreeSet<AttachmentId>>, CniError> {
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some((key, value)) = keys.into_iter().find_map(|key| Some((key, self.0.get(key)?))) else {
            return Ok(None);
        };
        let attachments: Option<BTreeSet<AttachmentId>> =
            serde::Deserialize::deserialize(value).map_err(|error: serde_json::Error| invalid(key, error))?;
        Ok(Some(attachments.unwrap_or_default()))
    }

    fn unsupported(&self) -> Option<CniError> {
        let is_known = |key: &str| KEYS.contains(&key) || key.starts_with("cni.dev/");
        let refuse = |key: &str, value: &Value, why: &str| {
            CniError::new(code::UNSUPPORTED_FIELD, format!("{key}: {value}: {why}"))
        };
        self.0.iter().find_map(|(key, value)| match key.as_str() {
            "ipam" if value.get("type").is_some() => {
                Some(refuse(key, value, "addresses come from the node's podCIDRs"))
            }
            "ipMasq" if value != &Value::Bool(false) => Some(refuse(
                key,
                value,
                "masquerading is configured in the DataplaneConfig",
            )),
            key if !is_known(key) => Some(refuse(key, value, "the plugin has no such key")),
            _ => None,
        })
    }

    fn string(&self, key: &str) -> Result<Option<&str>, CniError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(invalid(key, format!("{other} is not a string"))),
        }
    }

    /// `null` is as none.
    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, CniError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(invalid(key, format!("{other} is not an object"))),
        }
    }
}

fn invalid(key: &str, why: impl std::fmt::Display) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("{key}: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Config, CniError> {
        Document::decode(value.to_string().as_bytes())?.config()
    }

    #[test]
    fn reads_what_libcni_makes() {
        let config = json!({
            "cniVersion": "1.1.0",
            "name": "weir",
            "type": "weir-cni",
            "capabilities": { "portMappings": true },
            "runtimeConfig": { "portMappings": [{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp" }] },
            "socket": "/run/other/cni.sock",
            "prevResult": { "cniVersion": "1.1.0" },
            "cni.dev/attachments": null,
            "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }],
        });
        let expected = Config {
            version: SpecVersion::V1_1_0,
            name: "weir".into(),
            socket: "/run/other/cni.sock".into(),
            prev_result: json!({ "cniVersion": "1.1.0" }).as_object().cloned(),
            valid_attachments: Some(BTreeSet::from([AttachmentId {
                container_id: "c1".into(),
                ifname: "eth0".into(),
            }])),
            unsupported: None,
        };
        assert_eq!(parse(&config), Ok(expected));
    }

    #[test]
    fn most_keys_may_be_absent() {
        let expected = Config {
            version: SpecVersion::V0_3_1,
            name: "weir".into(),
            socket: DEFAULT_SOCKET.into(),
            prev_result: None,
            valid_attachments: None,
            unsupported: None,
        };
        assert_eq!(
            parse(&json!({ "cniVersion": "0.3.1", "name": "weir" })),
            Ok(expected)
        );
    }

    #[test]
    fn no_valid_attachments_differ_from_none_said() {
        let config = |value: Value| {
            parse(&json!({ "cniVersion": "1.1.0", "name": "weir", "cni.dev/valid-attachments": value }))
        };
        for none in [json!(null), json!([])] {
            assert_eq!(
                config(none).expect("valid").valid_attachments,
                Some(BTreeSet::new())
            );
        }
        let error = config(json!([{ "containerID": "c1" }])).expect_err("no ifname");
        assert_eq!(
            error,
            CniError::new(7, "cni.dev/valid-attachments: missing field `ifname`")
        );
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        let cases = [
            (
                json!({ "name": "weir" }),
                1,
                "cniVersion: \"0.1.0\" is none of 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
            (
                json!({ "cniVersion": "2.0.0", "name": "weir" }),
                1,
                "cniVersion: \"2.0.0\" is none of 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
            (
                json!({ "cniVersion": 1, "name": "weir" }),
                7,
                "cniVersion: 1 is not a string",
            ),
            (json!({ "cniVersion": "1.0.0" }), 7, "name: missing"),
            (
                json!({ "cniVersion": "1.0.0", "name": "a b" }),
                7,
                "name: \"a b\" is not a letter or digit followed by letters, digits, '_', '.' and '-'",
            ),
            (
                json!({ "cniVersion": "1.0.0", "name": "weir", "socket": "cni.sock" }),
                7,
                "socket: \"cni.sock\" is not an absolute path",
            ),
            (
                json!({ "cniVersion": "1.0.0", "name": "weir", "socket": ["/run"] }),
                7,
                "socket: [\"/run\"] is not a string",
            ),
            (
                json!({ "cniVersion": "1.0.0", "name": "weir", "prevResult": "x" }),
                7,
                "prevResult: \"x\" is not an object",
            ),
        ];
        for (config, code, expected) in cases {
            assert_eq!(parse(&config), Err(CniError::new(code, expected)));
        }
        let long = format!("/{}", "x".repeat(107));
        let config = json!({ "cniVersion": "1.0.0", "name": "weir", "socket": long });
        let expected = format!("socket: {long:?} is longer than 107 bytes");
        assert_eq!(parse(&config), Err(CniError::new(7, expected)));
    }

    #[test]
    fn names_the_key_it_has_no_use_for() {
        let cases = [
            (
                "ipam",
                json!({ "type": "host-local" }),
                "ipam: {\"type\":\"host-local\"}: addresses come from the node's podCIDRs",
            ),
            (
                "ipMasq",
                json!(true),
                "ipMasq: true: masquerading is configured in the DataplaneConfig",
            ),
            ("soket", json!("/x"), "soket: \"/x\": the plugin has no such key"),
        ];
        for (key, value, expected) in cases {
            let config = parse(&json!({ "cniVersion": "1.0.0", "name": "weir", key: value })).expect("valid");
            assert_eq!(config.unsupported, Some(CniError::new(2, expected)));
        }
        for (key, value) in [
            ("ipam", json!({})),
            ("ipMasq", json!(false)),
            ("cni.dev/new", json!(1)),
        ] {
            let config = parse(&json!({ "cniVersion": "1.0.0", "name": "weir", key: value })).expect("valid");
            assert_eq!(config.unsupported, None, "{key}");
        }
    }

    #[test]
    fn what_is_no_object_is_not_decoded() {
        for (stdin, details) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "it is another JSON value"),
            ("{", "EOF while parsing an object at line 1 column 1"),
        ] {
            let error = Document::decode(stdin.as_bytes()).expect_err(stdin);
            let expected = CniError::new(6, "the configuration on standard input is not a JSON object");
            assert_eq!(error, expected.with_details(details));
        }
    }
}
