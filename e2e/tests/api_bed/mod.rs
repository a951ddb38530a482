//! A real API server with Weir's objects in it, and kubectl on it.
#![allow(
    dead_code,
    reason = "every test file compiles this one, and none uses all of it"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::api_server::ApiServer;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    server: ApiServer,
    folder: tempfile::TempDir,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0 for success; `kubectl diff` says by 1 that there are differences.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// What was written, of a call that must succeed.
    #[track_caller]
    pub(crate) fn expect(self, what: &str) -> String {
        assert!(self.succeeded(), "{what}: {}{}", self.out, self.err);
        self.out
    }
}

impl Bed {
    /// With everything of config/default applied.
    pub(crate) fn start() -> Self {
        let bed = Self {
            server: ApiServer::start().expect("an API server"),
            folder: tempfile::tempdir().expect("a folder"),
        };
        let manifests = checkout().join("config/default");
        let manifests = manifests.display().to_string();
        // A kind that is defined by the same call may not be served yet; nothing in config/default is of one.
        let apply = [
            "apply",
            "--server-side",
            "--field-manager=installer",
            "-k",
            &manifests,
        ];
        bed.kubectl(&apply).expect("applying config/default");
        for name in bed.definitions() {
            let wait = [
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                "crd",
                &name,
            ];
            bed.kubectl(&wait).expect("a definition");
        }
        bed
    }

    fn definitions(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "crd", "-o", "jsonpath={.items[*].metadata.name}"]);
        names
            .expect("the definitions")
            .split(' ')
            .map(str::to_owned)
            .collect()
    }

    /// kubectl as administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Answer {
        self.kubectl_with(arguments, "")
    }

    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> Answer {
        let mut command = self.server.kubectl().expect("kubectl");
        run(command.args(arguments), input)
    }

    /// kubectl as who has a token.
    pub(crate) fn kubectl_as(&self, who: &Token, arguments: &[&str], input: &str) -> Answer {
        let program = self.server.kubectl().expect("kubectl").get_program().to_owned();
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(&who.kubeconfig);
        run(command.args(arguments), input)
    }

    /// A token of a service account of weir-system; bound to a pod, if one is named.
    pub(crate) fn token(&self, account: &str, pod: Option<&str>) -> Token {
        let mut arguments = vec!["create", "token", account, "--namespace=weir-system"];
        if let Some(pod) = pod {
            arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
        }
        let token = self.kubectl(&arguments).expect("a token");
        let admin = fs::read(self.server.kubeconfig()).expect("the kubeconfig");
        let mut config: Value = serde_json::from_slice(&admin).expect("JSON");
        config["users"][0]["user"] = json!({ "token": token.trim() });
        let name = format!("{account}-{}.kubeconfig", pod.unwrap_or("unbound"));
        let kubeconfig = self.folder.path().join(name);
        fs::write(&kubeconfig, config.to_string()).expect("written");
        Token { kubeconfig }
    }

    /// Calls until the answer is as wanted: an API server takes a moment to know of its own new policies.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, call: impl Fn() -> Answer, wanted: impl Fn(&Answer) -> bool) {
        let start = Instant::now();
        loop {
            let answer = call();
            if wanted(&answer) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {answer:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

pub(crate) struct Token {
    kubeconfig: PathBuf,
}

pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a folder in the workspace's root")
}

fn run(command: &mut Command, input: &str) -> Answer {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("its input");
    // It may have ended, not caring for its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("kubectl ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Answer {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
