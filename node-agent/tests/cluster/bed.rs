//! An API server, a node with an agent, and pods that the CNI plugin asks for.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use weir_cni::agent::ask;
use weir_cni::protocol::{self, Answer, AttachmentId, Request, Verb};
use weir_e2e::api_server::ApiServer;
use weir_testbed::topology::{Uplink, node_with_uplink};
use weir_testbed::traffic::{self, Outcome, Serve, Tcp};
use weir_testbed::{Place, Process, Testbed};

use crate::attached;

/// Every pod echoes here.
pub(crate) const PORT: u16 = 8080;

/// Long, for a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a probe that gets no answer.
const TIMEOUT: Duration = Duration::from_millis(400);

pub(crate) struct Bed {
    api: ApiServer,
    agent: Option<Process>,
    node: Place,
    directory: PathBuf,
    servers: Mutex<Vec<Process>>,
    quiet: bool,
    testbed: Testbed,
}

/// A pod that is attached.
#[derive(Debug)]
pub(crate) struct Pod {
    name: String,
    place: Place,
    uid: String,
    pub(crate) answer: Answer,
}

/// A pod that the API has, and a namespace for it.
#[derive(Debug)]
pub(crate) struct Unattached {
    place: Place,
    uid: String,
}

impl Pod {
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>> {
        Ok(attached(&self.answer)?
            .addresses
            .iter()
            .map(|address| address.address)
            .collect())
    }
}

impl Bed {
    pub(crate) fn new(test: &str) -> Result<Bed> {
        let testbed = Testbed::new(test)?;
        let Uplink { node, .. } = node_with_uplink(&testbed, "node")?;
        let directory = testbed.subdirectory("n1")?;
        let api = node.run(ApiServer::start)??;
        let mut bed = Bed {
            api,
            agent: None,
            node,
            directory,
            servers: Mutex::default(),
            quiet: false,
            testbed,
        };
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        for kind in ["identityslices", "addressslices", "nodedataplanes"] {
            let file = crds.join(format!("dataplane.weir.dev_{kind}.yaml"));
            bed.kubectl(
                &["apply", "--server-side", "-f", &file.display().to_string()],
                None,
            )?;
            let name = format!("crd/{kind}.dataplane.weir.dev");
            bed.kubectl(&["wait", "--for=condition=Established", &name], None)?;
        }
        bed.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weir-system"}}))?;
        bed.kubectl(
            &["create", "-f", "-"],
            Some(&json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": "n1"},
                "spec": {
                    "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
                    "podCIDR": "10.244.1.0/24",
                    "taints": [
                        {"key": "dataplane.weir.dev/not-ready", "effect": "NoSchedule"},
                        {"key": "other", "effect": "NoSchedule"}
                    ]
                }
            })),
        )?;
        bed.restart_agent()?;
        Ok(bed)
    }

    pub(crate) fn restart_agent(&mut self) -> Result<()> {
        if let Some(mut agent) = self.agent.take() {
            agent.kill9()?;
        }
        let at = |name: &str| self.directory.join(name).display().to_string();
        let mut command = self.node.command(env!("CARGO_BIN_EXE_weir-agent"));
        command
            .args(["run", "--node-name", "n1", "--metrics-address", "127.0.0.1:9962"])
            .args(["--kubeconfig", &self.api.kubeconfig().display().to_string()])
            .args(["--bpffs", &self.testbed.bpffs().display().to_string()])
            .args(["--state-dir", &at("state"), "--cni-state-dir", &at("cni")])
            .args(["--cni-socket", &self.socket().display().to_string()])
            .args(["--cgroup", &self.node.cgroup().display().to_string()])
            .args(["--flow-log", &at("flow.log")]);
        std::fs::create_dir_all(at("state"))?;
        self.agent = Some(Process::spawn_logged("weir-agent", &mut command, &self.log())?);
        self.until("the agent listens", || Ok(self.socket().exists()))
    }

    fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("cni.sock")
    }

    pub(crate) fn stop_api_server(&mut self) -> Result<()> {
        self.api.stop()
    }

    pub(crate) fn resume_api_server(&mut self) -> Result<()> {
        let (node, api) = (self.node.clone(), &mut self.api);
        node.run(|| api.resume())?
    }

    /// What it prints, as JSON.
    fn kubectl(&self, arguments: &[&str], input: Option<&Value>) -> Result<String> {
        self.node.run(|| {
            let mut command = self.api.kubectl()?;
            command
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn().context("kubectl")?;
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                stdin.write_all(&serde_json::to_vec(input)?)?;
            }
            let output = child.wait_with_output()?;
            ensure!(
                output.status.success(),
                "kubectl {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(String::from_utf8(output.stdout)?)
        })?
    }

    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=test",
            "-f",
            "-",
        ];
        self.kubectl(&apply, Some(object)).map(|_| ())
    }

    pub(crate) fn get(&self, kind: &str, name: &str, namespace: Option<&str>) -> Result<Value> {
        let namespace = namespace.unwrap_or("default");
        let text = self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"], None)?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn status(&self) -> Result<Value> {
        Ok(self.get("nodedataplane", "n1", None)?["status"].take())
    }

    pub(crate) fn condition(&self, kind: &str) -> Result<Value> {
        let status = self.status()?;
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        Ok(conditions
            .find(|condition| condition["type"] == json!(kind))
            .cloned()
            .unwrap_or_default())
    }

    pub(crate) fn taints(&self) -> Result<Value> {
        Ok(self.get("node", "n1", None)?["spec"]["taints"].take())
    }

    /// Waits until the agent has acknowledged the generation; the status that says so.
    pub(crate) fn programmed(&self, generation: i64) -> Result<Value> {
        self.until(&format!("generation {generation} is programmed"), || {
            let programmed = self.condition("Programmed")?;
            Ok(self.status()?["programmedGeneration"] == json!(generation)
                && programmed["status"] == json!("True")
                && programmed["observedGeneration"] == json!(generation))
        })?;
        self.status()
    }

    pub(crate) fn until(&self, what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !so()? {
            if start.elapsed() > PATIENCE {
                bail!(
                    "{what}: not within {PATIENCE:?}; the status is {:#}",
                    self.status()?
                );
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A pod on the node, labelled `app=APP`, that serves.
    pub(crate) fn pod(&self, name: &str, app: &str) -> Result<Pod> {
        let unattached = self.pod_object(name, app)?;
        self.attach(name, &unattached)
    }

    pub(crate) fn place(&self, name: &str) -> Result<(String, Place)> {
        let place = self.testbed.pod(&self.node, name)?;
        let ips = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let server = place.serve(&Serve {
            name: name.into(),
            echo: ips.map(|ip| SocketAddr::new(ip, PORT)).into(),
            ..Serve::default()
        })?;
        self.servers.lock().expect("servers").push(server);
        Ok((name.into(), place))
    }

    pub(crate) fn pod_object(&self, name: &str, app: &str) -> Result<Unattached> {
        self.pod_object_in(self.place(name)?, app)
    }

    pub(crate) fn pod_object_in(&self, (name, place): (String, Place), app: &str) -> Result<Unattached> {
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": app, "job": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]}
        }))?;
        let uid = self.get("pod", &name, None)?["metadata"]["uid"].take();
        Ok(Unattached {
            place,
            uid: uid.as_str().context("a uid")?.to_owned(),
        })
    }

    /// As the CNI plugin does it.
    pub(crate) fn attach(&self, name: &str, unattached: &Unattached) -> Result<Pod> {
        let mut pod = Pod {
            name: name.into(),
            place: unattached.place.clone(),
            uid: unattached.uid.clone(),
            answer: Answer::Done,
        };
        pod.answer = self.add(&pod)?;
        Ok(pod)
    }

    pub(crate) fn add(&self, pod: &Pod) -> Result<Answer> {
        self.ask(Verb::Add {
            container_id: pod.name.clone(),
            netns: pod.place.netns_path(),
            ifname: "eth0".into(),
            pod: protocol::Pod {
                namespace: "default".into(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            },
        })
    }

    pub(crate) fn check(&self, pod: &Pod) -> Result<Answer> {
        self.ask(Verb::Check {
            container_id: pod.name.clone(),
            netns: pod.place.netns_path(),
            ifname: "eth0".into(),
        })
    }

    pub(crate) fn delete(&self, pod: &Pod) -> Result<()> {
        let id = AttachmentId {
            container_id: pod.name.clone(),
            ifname: "eth0".into(),
        };
        let answer = self.ask(Verb::Del {
            container_id: id.container_id,
            ifname: id.ifname,
        })?;
        ensure!(answer == Answer::Done, "{answer:?}");
        Ok(())
    }

    fn ask(&self, verb: Verb) -> Result<Answer> {
        match ask(&self.socket(), protocol::line(&Request::new(verb))?, PATIENCE)? {
            Answer::Failed(error) => bail!("{error}"),
            answer @ (Answer::Attached(_) | Answer::Done) => Ok(answer),
        }
    }

    /// Who reaches whom, at every address; waits until all of it is so.
    pub(crate) fn expect(&self, probes: &[(&Pod, &Pod, bool)]) -> Result<()> {
        let start = Instant::now();
        loop {
            let wrong = self.wrong(probes)?;
            if wrong.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("not within {PATIENCE:?}: {wrong:#?}");
            }
        }
    }

    fn wrong(&self, probes: &[(&Pod, &Pod, bool)]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (from, to, passes) in probes {
            for address in to.addresses()? {
                let request = Tcp::to(SocketAddr::new(address, PORT)).timeout(TIMEOUT);
                let outcome = from.place.run(|| traffic::tcp(&request))?.outcome;
                let expected = if *passes {
                    Outcome::Answered
                } else {
                    Outcome::TimedOut
                };
                if outcome != expected {
                    wrong.push(format!("{} → {} {address}: {outcome:?}", from.name, to.name));
                }
            }
        }
        Ok(wrong)
    }

    /// What `ip` prints on the node; nothing where it fails.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String> {
        let output = self.node.command("ip").args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Names of the links that are pinned.
    pub(crate) fn links(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut directories = vec![self.testbed.bpffs()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.parent().is_some_and(|parent| parent.ends_with("links")) {
                    names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(names)
    }

    /// What the agent serves at this path.
    pub(crate) fn served(&self, path: &str) -> Result<String> {
        self.node.run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9962))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.quiet = true;
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent
            && !self.quiet
        {
            eprintln!("the end of the agent's log:\n{}", agent.tail());
        }
    }
}
