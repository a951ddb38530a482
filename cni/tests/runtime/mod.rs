//! A container runtime's side: environment and configuration in, exit code and JSON out.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// One call of the plugin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    dir: PathBuf,
    variables: BTreeMap<String, String>,
    config: Value,
    /// In place of the configuration.
    stdin: Option<String>,
}

/// What came of it, with the paths of the test's directory replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success { stdout: Option<Value>, stderr: String },
    Failure { stdout: Value, stderr: String },
}

impl Call {
    pub(crate) fn new(command: &str, version: &str, dir: &Path) -> Call {
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "c1".into()),
            ("CNI_NETNS", dir.join("netns").display().to_string()),
            ("CNI_IFNAME", "eth0".into()),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=8c7a"
                    .into(),
            ),
            ("CNI_PATH", "/opt/cni/bin".into()),
        ];
        Call {
            dir: dir.to_owned(),
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            config: json!({
                "cniVersion": version,
                "name": "weir",
                "type": "weir-cni",
                "socket": super::agent::socket(dir),
            }),
            stdin: None,
        }
    }

    pub(crate) fn container(self, id: &str) -> Call {
        self.variable("CNI_CONTAINERID", id)
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Call {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(crate) fn config(mut self, key: &str, value: Value) -> Call {
        self.config[key] = value;
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Call {
        self.stdin = Some(text.into());
        self
    }

    pub(crate) fn run(&self) -> Answer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-cni"))
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let stdin = self.stdin.clone().unwrap_or_else(|| self.config.to_string());
        // A plugin that knows enough does not read it.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        let output = child.wait_with_output().expect("ended");
        let stderr = self.without_places(&output.stderr);
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        if output.status.success() {
            let stdout = (!stdout.is_empty()).then(|| serde_json::from_str(&stdout).expect("JSON"));
            return Answer::Success { stdout, stderr };
        }
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let stdout = self.without_places(stdout.as_bytes());
        Answer::Failure {
            stdout: serde_json::from_str(&stdout).expect("JSON"),
            stderr,
        }
    }

    fn without_places(&self, bytes: &[u8]) -> String {
        let socket = super::agent::socket(&self.dir).display().to_string();
        String::from_utf8_lossy(bytes)
            .replace(&socket, "SOCKET")
            .replace(&self.dir.display().to_string(), "DIR")
    }
}

impl Answer {
    pub(crate) fn silent() -> Answer {
        Answer::Success {
            stdout: None,
            stderr: String::new(),
        }
    }

    pub(crate) fn said(result: Value) -> Answer {
        Answer::Success {
            stdout: Some(result),
            stderr: String::new(),
        }
    }

    pub(crate) fn failed(error: Value) -> Answer {
        Answer::Failure {
            stdout: error,
            stderr: String::new(),
        }
    }

    /// Those of a result.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let Answer::Success {
            stdout: Some(result), ..
        } = self
        else {
            panic!("no result: {self:?}");
        };
        let ips = result["ips"].as_array().expect("a list");
        ips.iter()
            .map(|ip| ip["address"].as_str().expect("a string").to_owned())
            .collect()
    }
}
