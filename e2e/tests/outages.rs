//! Parts of the cluster fail; traffic and policy go on, nothing opens, and what was changed meanwhile is in force after.
//! Ignored by default: it needs root and a cluster.
//!
//! All the time friends talk with the servers of both nodes, which a policy lets them: datagrams that are numbered, each
//! to be answered, and a connection from each to each, which must live. Strangers try all the time, by new and kept
//! sockets and by connections, and must not be heard. A second port is for the strangers or for nobody: that is what
//! changes in each outage.

mod cluster_bed;
#[path = "outages/traffic.rs"]
mod traffic;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use cluster_bed::agent::Agent;
use cluster_bed::listener::Listener;
use cluster_bed::netns::Netns;
use cluster_bed::newcomers::Newcomers;
use cluster_bed::pods::Pod;
use cluster_bed::{Bed, PATIENCE};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use traffic::{Denied, Talk, Targets, answers};
use weir_e2e::control_plane::Program;
use weir_e2e::kubernetes;
use weir_e2e::process::wait_for;
use weir_e2e::progress::Progress;

const NAMESPACE: &str = "outages";
const SYSTEM: &str = "weir-system";
const SERVER: &str = "server";
const FRIEND: &str = "friend";
const STRANGER: &str = "stranger";

/// For friends, always; and for strangers, at times.
const PORT: u16 = 7000;
const OTHER_PORT: u16 = 7001;

/// How long a part is away.
const AWAY: Duration = Duration::from_secs(15);
/// Before and after.
const CALM: Duration = Duration::from_secs(3);

fn policy(name: &str, peers: &Value, port: u16) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "podSelector": { "matchLabels": { "app": SERVER } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": peers,
                "ports": [{ "protocol": "UDP", "port": port }, { "protocol": "TCP", "port": port }],
            }],
        },
    })
}

fn of(app: &str) -> Value {
    json!([{ "podSelector": { "matchLabels": { "app": app } } }])
}

/// The second port is for the pods of a label that none may have.
fn open_to(app: &str) -> Value {
    policy("second", &of(app), OTHER_PORT)
}

/// The pods with what runs in them. Where a node is left out, its pods are.
struct Scene {
    listeners: Vec<Listener>,
    talks: Vec<Talk>,
    denied: Vec<Denied>,
    /// Networks of strangers, and addresses of servers.
    strangers: Vec<Netns>,
    servers: Vec<IpAddr>,
}

impl Scene {
    fn prepare(bed: &Bed) {
        bed.namespace(NAMESPACE);
        bed.one_on_each_node(NAMESPACE, &[SERVER, FRIEND, STRANGER]);
        for object in [policy("first", &of(FRIEND), PORT), open_to("nobody")] {
            wait_until_programmed(bed, &bed.apply(&object));
        }
    }

    /// Traffic begins. The policies are in force.
    fn set(bed: &Bed, nodes: &[&str]) -> Self {
        let pods = |app: &str| -> Vec<Pod> {
            let mut pods = bed.pods(NAMESPACE, app);
            pods.retain(|pod| nodes.contains(&pod.node.as_str()));
            assert_eq!(pods.len(), nodes.len(), "{pods:?}");
            pods
        };
        let network = |pod: &Pod| Netns::of_pod(&bed.cluster, pod);
        let (servers, friends, strangers) = (pods(SERVER), pods(FRIEND), pods(STRANGER));
        let listen = |pod: &Pod| {
            [PORT, OTHER_PORT].map(|port| Listener::start(&network(pod), port).expect("it listens"))
        };
        let listeners = servers.iter().flat_map(listen).collect();
        let addresses: Vec<IpAddr> = servers
            .iter()
            .flat_map(|server| server.addresses.clone())
            .collect();
        let mut talks = Vec::new();
        for friend in &friends {
            talks.extend(addresses.iter().map(|server| {
                let name = format!("{} to {server}", friend.node);
                Talk::start(&network(friend), name, *server, PORT)
            }));
        }
        let targets = Targets::new(&addresses, PORT);
        let denied = strangers.iter().map(|pod| Denied::start(&network(pod), &targets));
        Self {
            listeners,
            talks,
            denied: denied.collect(),
            strangers: strangers.iter().map(network).collect(),
            servers: addresses,
        }
    }

    /// Whether every stranger gets answers at the second port from every server, or none from any.
    fn second_port_is(&self, open: bool) -> bool {
        let calls = self.strangers.iter().flat_map(|stranger| {
            let servers = self.servers.iter();
            servers.map(move |server| stranger.run(|| answers(*server, OTHER_PORT)).expect("in the pod"))
        });
        calls.collect::<Vec<_>>().iter().all(|answered| *answered == open)
    }

    /// Ends the traffic, and tells what went wrong.
    fn end(self, what: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut sent, mut tried) = (0, 0);
        let mut longest = Duration::ZERO;
        for talk in self.talks {
            let told = talk.end();
            sent += told.sent;
            longest = longest.max(told.longest_silence);
            if told.sent < 100 {
                wrong.push(format!("{what}: {} sent too little: {told:?}", told.name));
            }
            if !told.lost.is_empty() {
                wrong.push(format!(
                    "{what}: {} lost {} of {}: {:?}",
                    told.name,
                    told.lost.len(),
                    told.sent,
                    told.lost
                ));
            }
            if let Some(error) = told.broken {
                wrong.push(format!("{what}: the connection {} broke: {error}", told.name));
            }
        }
        let mut strangers = Vec::new();
        for denied in self.denied {
            let (count, addresses) = denied.end();
            tried += count;
            strangers.extend(addresses);
        }
        let first_port = self.listeners.iter().step_by(2);
        for listener in first_port {
            let received = listener.received();
            let intruders = received
                .iter()
                .filter(|received| strangers.contains(&received.from));
            wrong.extend(intruders.map(|one| format!("{what}: {} got through from {}", one.text, one.from)));
        }
        eprintln!(
            "{what}: {sent} datagrams that policy allows, longest silence of a connection {} ms, {tried} tries of \
             strangers; {} violations",
            longest.as_millis(),
            wrong.len()
        );
        wrong
    }
}

/// Says for how long it was waited.
#[track_caller]
fn wait_until_programmed(bed: &Bed, policy: &Value) -> Duration {
    let start = Instant::now();
    let name = policy["metadata"]["name"].as_str().expect("a name");
    let mut last = Value::Null;
    let done = wait_for("the policy to be programmed", PATIENCE, || {
        last = bed.get(&["policystatus", name, &format!("--namespace={NAMESPACE}")]);
        let conditions = last["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_so = conditions.iter().any(|condition| {
            condition["type"] == "Programmed"
                && condition["status"] == "True"
                && condition["observedGeneration"] == policy["metadata"]["generation"]
        });
        Ok((is_so && last["spec"]["policyUID"] == policy["metadata"]["uid"]).then_some(()))
    });
    assert!(done.is_ok(), "{last:#}");
    start.elapsed()
}

fn scale_operator(bed: &Bed, replicas: u64) {
    let replicas_flag = format!("--replicas={replicas}");
    let namespace = format!("--namespace={SYSTEM}");
    bed.kubectl(&["scale", "deployment/weir-operator", &replicas_flag, &namespace]);
    if replicas > 0 {
        kubernetes::roll_out(&bed.cluster, SYSTEM, "deployment/weir-operator", PATIENCE).expect("rolled out");
        return;
    }
    wait_for("the operator to end", PATIENCE, || {
        let pods = bed.get(&[
            "pods",
            "--selector=app.kubernetes.io/name=weir-operator",
            &namespace,
        ]);
        let none = pods["items"].as_array().is_none_or(Vec::is_empty);
        Ok(none.then_some(()))
    })
    .expect("ended");
}

/// Puts something back, also when the test fails.
struct Restore<F: FnMut()>(F);

impl<F: FnMut()> Drop for Restore<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn operator_down(bed: &Bed) -> Vec<String> {
    let scene = Scene::set(bed, &["node1", "node2"]);
    sleep(CALM);
    let replicas = bed.get(&["deployment/weir-operator", &format!("--namespace={SYSTEM}")]);
    let replicas = replicas["spec"]["replicas"].as_u64().expect("a number");
    let restore = Restore(|| scale_operator(bed, replicas));
    scale_operator(bed, 0);
    let policy = bed.apply(&open_to(STRANGER));
    sleep(AWAY);
    assert!(scene.second_port_is(false), "nobody can have told the agents");
    drop(restore);
    let took = wait_until_programmed(bed, &policy);
    eprintln!(
        "operator down: the change is programmed {:.1} s after it is back",
        took.as_secs_f64()
    );
    assert!(scene.second_port_is(true), "what is programmed is in force");
    sleep(CALM);
    scene.end("operator down")
}

fn agents_killed(bed: &Bed) -> Vec<String> {
    let scene = Scene::set(bed, &["node1", "node2"]);
    sleep(CALM);
    for node in bed.cluster.nodes() {
        Agent::on(&node).kill();
    }
    let policy = bed.apply(&open_to("nobody"));
    let took = wait_until_programmed(bed, &policy);
    eprintln!(
        "agents killed: a change meanwhile is programmed after {:.1} s",
        took.as_secs_f64()
    );
    assert!(scene.second_port_is(false), "what is programmed is in force");
    sleep(CALM);
    scene.end("agents killed")
}

fn agents_away(bed: &Bed) -> Vec<String> {
    let scene = Scene::set(bed, &["node1", "node2"]);
    let daemon_set = |selector: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{selector}}}}}}}}}"#);
        let patch = format!("--patch={patch}");
        let namespace = format!("--namespace={SYSTEM}");
        bed.kubectl(&[
            "patch",
            "daemonset/weir-agent",
            "--type=merge",
            &patch,
            &namespace,
        ]);
    };
    sleep(CALM);
    let restore = Restore(|| daemon_set(r#"{"e2e.weir.invalid/none":null}"#));
    daemon_set(r#"{"e2e.weir.invalid/none":"none"}"#);
    let away = || bed.cluster.nodes().iter().all(|node| Agent::find(node).is_none());
    wait_for("the agents to end", PATIENCE, || Ok(away().then_some(()))).expect("ended");
    let policy = bed.apply(&open_to(STRANGER));
    sleep(AWAY);
    assert!(scene.second_port_is(false), "nobody can have told the kernel");
    drop(restore);
    let took = wait_until_programmed(bed, &policy);
    eprintln!(
        "agents away: the change is programmed {:.1} s after they may come back",
        took.as_secs_f64()
    );
    assert!(scene.second_port_is(true), "what is programmed is in force");
    sleep(CALM);
    scene.end("agents away")
}

/// One agent is killed too, and comes back while there is nobody to ask.
fn api_server_down(bed: &Bed) -> Vec<String> {
    let scene = Scene::set(bed, &["node1", "node2"]);
    sleep(CALM);
    let control_plane = bed.cluster.control_plane();
    control_plane
        .stop(Program::ApiServer, Signal::SIGKILL)
        .expect("killed");
    let node = bed.cluster.node("node1").expect("a node");
    sleep(CALM);
    Agent::on(&node).kill();
    sleep(AWAY);
    assert!(scene.second_port_is(true), "what was in force is in force");
    control_plane.start(Program::ApiServer).expect("started");
    control_plane.wait_until_ready().expect("ready");
    // These end when they cannot reach it.
    for program in [Program::ControllerManager, Program::Scheduler] {
        control_plane.start(program).expect("started");
    }
    let policy = bed.apply(&open_to("nobody"));
    let took = wait_until_programmed(bed, &policy);
    eprintln!(
        "API server down: a change is programmed {:.1} s after it is back",
        took.as_secs_f64()
    );
    assert!(scene.second_port_is(false), "what is programmed is in force");
    sleep(CALM);
    scene.end("API server down")
}

/// The networks of a node that starts anew, with what reaches them from the moment at which they are there.
type Reborn = Arc<Mutex<Vec<(Netns, Listener)>>>;

/// Whoever has an address is tried by those who must not reach it, from then on.
fn listen_from_birth(netns: Netns, reborn: &Reborn, targets: &Targets) {
    let listener = Listener::start(&netns, PORT).expect("it listens");
    let (network, targets) = (netns.clone(), targets.clone());
    thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let addresses = network.addresses();
            targets.add(&addresses, PORT);
            if addresses.len() > 1 {
                return;
            }
            sleep(Duration::from_millis(2));
        }
    });
    reborn.lock().expect("no panic").push((netns, listener));
}

/// The pods of a node, if all of them run again.
fn pods_that_run_again(bed: &Bed, node: &str) -> Option<Vec<Pod>> {
    let namespace = format!("--namespace={NAMESPACE}");
    let of_node = format!("--field-selector=spec.nodeName={node}");
    let list = bed.get(&["pods", &namespace, &of_node]);
    let items = list["items"].as_array()?;
    let runs_again = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let is_ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        is_ready && restarts.is_some_and(|restarts| restarts > 0)
    };
    items
        .iter()
        .all(runs_again)
        .then(|| items.iter().map(Pod::of).collect())
}

fn node_rebooted(bed: &Bed) -> Vec<String> {
    const WHAT: &str = "node2 rebooted";
    let scene = Scene::set(bed, &["node1"]);
    let node = bed.cluster.node("node2").expect("a node");
    let (reborn, targets) = (Reborn::default(), Targets::default());
    let denied = Denied::start(&scene.strangers[0], &targets);
    let (listening, trying) = (Arc::clone(&reborn), targets.clone());
    let newcomers = Newcomers::watch(&node, move |netns| listen_from_birth(netns, &listening, &trying));
    sleep(CALM);
    bed.cluster
        .reboot(&node.name, Progress::start())
        .expect("rebooted");
    let policy = bed.apply(&open_to(STRANGER));
    let took = wait_until_programmed(bed, &policy);
    eprintln!(
        "{WHAT}: a change meanwhile is programmed after {:.1} s",
        took.as_secs_f64()
    );
    let again = || Ok(pods_that_run_again(bed, &node.name));
    let pods = wait_for("the pods to run again", PATIENCE, again).expect("they run");
    sleep(CALM);
    let (tried, strangers) = denied.end();
    drop(newcomers);
    let mut wrong = Vec::new();
    let servers: Vec<&Pod> = pods.iter().filter(|pod| pod.app() == SERVER).collect();
    let reborn = std::mem::take(&mut *reborn.lock().expect("no panic"));
    let is_of_server = |netns: &Netns| {
        let own = netns.addresses();
        servers
            .iter()
            .any(|server| server.addresses.iter().all(|address| own.contains(address)))
    };
    let of_servers: Vec<_> = reborn.iter().filter(|(netns, _)| is_of_server(netns)).collect();
    assert_eq!(of_servers.len(), 1, "{} networks were seen", reborn.len());
    for (_, listener) in of_servers {
        let received = listener.received();
        let intruders = received.iter().filter(|one| strangers.contains(&one.from));
        wrong.extend(intruders.map(|one| format!("{WHAT}: {} got through from {}", one.text, one.from)));
    }
    eprintln!("{WHAT}: {tried} tries of a stranger to reach its pods");
    drop(reborn);
    assert!(scene.second_port_is(true), "what is programmed is in force");
    wrong.extend(scene.end(WHAT));
    // On both nodes, with what runs there since.
    let scene = Scene::set(bed, &["node1", "node2"]);
    assert!(scene.second_port_is(true), "what is programmed is in force");
    sleep(CALM);
    wrong.extend(scene.end("after the reboot"));
    wrong
}

#[test]
#[ignore = "needs root and a cluster: `cargo xtask e2e`"]
fn traffic_and_policy_go_on_when_parts_of_the_cluster_fail() {
    let bed = Bed::start("outages");
    Scene::prepare(&bed);
    let mut wrong = Vec::new();
    for outage in [
        operator_down,
        agents_killed,
        agents_away,
        api_server_down,
        node_rebooted,
    ] {
        wrong.extend(outage(&bed));
    }
    bed.delete(&["namespace", NAMESPACE, "--wait=false"]);
    assert_eq!(wrong, Vec::<String>::new());
}
