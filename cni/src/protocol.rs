//! What the plugin and the agent say to each other.
//!
//! A connection carries one request and one answer, each a JSON object on one line that ends in a line feed. The
//! plugin keeps its side open until it has the answer: when it closes, nobody waits any more.
//!
//! Plugin and agent may be of different builds for a while: the runtime may run the plugin of the agent before.
//! Unknown keys are ignored by both; [`VERSION`] goes up only with a change that an older build would take for
//! something else, and an agent answers a version that it does not know with error 1.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::CniError;
use crate::error::code;

/// Of this module's messages.
pub const VERSION: u32 = 1;

/// Where the agent listens if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/weir/cni.sock";

/// Bytes of a request at most, with its line feed. A `GC` of 8,000 attachments has about this many.
pub const MAX_REQUEST: u64 = 1 << 20;

/// Bytes of an answer at most, with its line feed.
pub const MAX_ANSWER: u64 = 1 << 16;

/// What the plugin asks. The strings in it have passed [`environment`](crate::environment)'s checks when they come
/// from the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub verb: Verb,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Verb {
    #[serde(rename = "ADD")]
    Add {
        container_id: String,
        netns: PathBuf,
        ifname: String,
        pod: Pod,
    },
    #[serde(rename = "DEL")]
    Del { container_id: String, ifname: String },
    #[serde(rename = "CHECK")]
    Check {
        container_id: String,
        netns: PathBuf,
        ifname: String,
    },
    #[serde(rename = "GC")]
    Gc { valid: BTreeSet<AttachmentId> },
    #[serde(rename = "STATUS")]
    Status,
}

/// The pod as the kubelet names it. A static pod's `uid` is the hash of its manifest, and not the one that its mirror
/// in the API has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentId {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To `ADD` and `CHECK`.
    Attached(Attached),
    /// To the others.
    Done,
    Failed(CniError),
}

/// A pod's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// In the node's namespace.
    pub host: Interface,
    /// In the pod's.
    pub pod: Interface,
    /// Of both, in bytes without the Ethernet header.
    pub mtu: u32,
    /// At least one. The runtime takes the first for the pod's, unless it is told to prefer a family.
    pub addresses: Vec<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// Six octets in hexadecimal with colons between.
    pub mac: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub address: IpAddr,
    /// Of the default route of the address's family.
    pub gateway: IpAddr,
}

impl Request {
    pub fn new(verb: Verb) -> Request {
        Request {
            version: VERSION,
            verb,
        }
    }

    /// The request in a line, with or without its line feed.
    pub fn parse(line: &[u8]) -> Result<Request, CniError> {
        /// The key that has to be understood before the others.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error: serde_json::Error| {
            CniError::new(
                code::DECODING_FAILURE,
                "the agent does not understand the plugin's request",
            )
            .with_details(error.to_string())
        };
        let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
        if version != VERSION {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                format!(
                    "the plugin speaks version {version} of the agent's protocol, and the agent {VERSION}"
                ),
            ));
        }
        serde_json::from_slice(line).map_err(malformed)
    }
}

/// A message as it goes over the socket. Fails for a path that is not UTF-8.
pub fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_its_line() {
        let pod = Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "8c7a".into(),
        };
        let attachment = AttachmentId {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        let cases = [
            (
                Verb::Add {
                    container_id: "c1".into(),
                    netns: "/run/netns/n".into(),
                    ifname: "eth0".into(),
                    pod,
                },
                r#"{"ADD":{"containerId":"c1","netns":"/run/netns/n","ifname":"eth0","pod":{"namespace":"shop","name":"web-0","uid":"8c7a"}}}"#,
            ),
            (
                Verb::Del {
                    container_id: "c1".into(),
                    ifname: "eth0".into(),
                },
                r#"{"DEL":{"containerId":"c1","ifname":"eth0"}}"#,
            ),
            (
                Verb::Check {
                    container_id: "c1".into(),
                    netns: "/run/netns/n".into(),
                    ifname: "eth0".into(),
                },
                r#"{"CHECK":{"containerId":"c1","netns":"/run/netns/n","ifname":"eth0"}}"#,
            ),
            (
                Verb::Gc {
                    valid: BTreeSet::from([attachment]),
                },
                r#"{"GC":{"valid":[{"containerID":"c1","ifname":"eth0"}]}}"#,
            ),
            (Verb::Status, r#""STATUS""#),
        ];
        for (verb, text) in cases {
            let request = Request::new(verb);
            let line = line(&request).expect("a line");
            assert_eq!(
                String::from_utf8(line.clone()).expect("UTF-8"),
                format!("{{\"version\":1,\"verb\":{text}}}\n")
            );
            assert_eq!(Request::parse(&line), Ok(request));
        }
    }

    #[test]
    fn every_answer_has_its_line() {
        let attached = Attached {
            host: Interface {
                name: "weir0".into(),
                mac: "02:57:45:49:52:01".into(),
            },
            pod: Interface {
                name: "eth0".into(),
                mac: "02:00:0a:00:00:02".into(),
            },
            mtu: 1450,
            addresses: vec![Address {
                address: [10, 0, 0, 2].into(),
                gateway: [169, 254, 1, 1].into(),
            }],
        };
        let cases = [
            (
                Answer::Attached(attached),
                r#"{"attached":{"host":{"name":"weir0","mac":"02:57:45:49:52:01"},"pod":{"name":"eth0","mac":"02:00:0a:00:00:02"},"mtu":1450,"addresses":[{"address":"10.0.0.2","gateway":"169.254.1.1"}]}}"#,
            ),
            (Answer::Done, r#""done""#),
            (
                Answer::Failed(CniError::try_again_later("not yet")),
                r#"{"failed":{"code":11,"msg":"not yet"}}"#,
            ),
        ];
        for (answer, text) in cases {
            let line = line(&answer).expect("a line");
            assert_eq!(
                String::from_utf8(line.clone()).expect("UTF-8"),
                format!("{text}\n")
            );
            assert_eq!(
                serde_json::from_slice::<Answer>(&line).expect("an answer"),
                answer
            );
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_versions_are_not() {
        let newer = br#"{"version":1,"hint":true,"verb":{"DEL":{"containerId":"c","ifname":"e","why":"x"}}}"#;
        let expected = Request::new(Verb::Del {
            container_id: "c".into(),
            ifname: "e".into(),
        });
        assert_eq!(Request::parse(newer), Ok(expected));
        assert_eq!(
            Request::parse(br#"{"version":2,"verb":{"SPLIT":{}}}"#),
            Err(CniError::new(
                1,
                "the plugin speaks version 2 of the agent's protocol, and the agent 1"
            ))
        );
        for malformed in [
            "",
            "{}",
            "[]",
            r#"{"version":-1}"#,
            r#"{"version":1,"verb":"ADD"}"#,
        ] {
            let error = Request::parse(malformed.as_bytes()).expect_err(malformed);
            assert_eq!(error.code, code::DECODING_FAILURE, "{malformed}");
        }
    }
}
