//! What a status says is so: from the moment at which `Programmed` is True, no packet goes another way. Ignored by
//! default: it needs root and a cluster.

mod cluster_bed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use cluster_bed::Bed;
use cluster_bed::agent::Agent;
use cluster_bed::listener::Listener;
use cluster_bed::netns::Netns;
use cluster_bed::pods::Pod;
use cluster_bed::times;
use cluster_bed::watch::Watch;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use weir_e2e::process::{run, wait_for};

const NAMESPACE: &str = "truth";
const POLICY: &str = "servers";
const CLUSTER_POLICY: &str = "e2e-truth";
const PORT: u16 = 7000;

/// Servers, and their clients by the label that policies look at.
const SERVER: &str = "server";
const CLIENTS: [&str; 2] = ["client", "other"];

const TRIALS: usize = 200;

/// For a change to be programmed, and for one that nothing tells of to be in force.
const SOON: Duration = Duration::from_secs(30);

/// For an answer. Nothing is sent twice, so an answer that takes longer is lost.
const ANSWER: Duration = Duration::from_secs(2);
/// Where traffic is tried until it goes through.
const QUICK_ANSWER: Duration = Duration::from_millis(100);

/// In which a packet that goes through would have gone through.
const SILENCE: Duration = Duration::from_millis(60);

/// An agent that is cut off renews its Lease no more.
const LEASE: Duration = Duration::from_secs(40);

/// For the operator to notice, and to write it.
const NOTICE: Duration = Duration::from_secs(2);

/// A trial: this object is applied, and these clients are admitted once it is programmed.
struct Trial {
    object: Value,
    admitted: &'static [&'static str],
}

fn network_policy(ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": POLICY, "namespace": NAMESPACE },
        "spec": {
            "podSelector": { "matchLabels": { "app": SERVER } },
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    })
}

fn cluster_network_policy(denied: &[&str]) -> Value {
    let of_namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } });
    let pods = |apps: &[&str]| {
        let selector = json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": apps }] });
        json!({ "pods": { "namespaceSelector": of_namespace, "podSelector": selector } })
    };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": CLUSTER_POLICY },
        "spec": {
            "tier": "Admin", "priority": 7,
            "subject": pods(&[SERVER]),
            "ingress": [{ "name": "denied", "action": "Deny", "from": [pods(denied)] }],
        },
    })
}

/// Each tightens or loosens what was before; what the last of a round leaves is deleted.
fn round(number: usize) -> Vec<Trial> {
    let of = |app: &str| json!([{ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }]);
    if number.is_multiple_of(2) {
        let by_network_policy: [(Value, &[&str]); 6] = [
            (json!([]), &[]),
            (of("client"), &["client"]),
            (of("other"), &["other"]),
            (json!([{}]), &["client", "other"]),
            (of("client"), &["client"]),
            (json!([]), &[]),
        ];
        let trial = |(ingress, admitted): &(Value, &'static [&'static str])| Trial {
            object: network_policy(ingress),
            admitted,
        };
        return by_network_policy.iter().map(trial).collect();
    }
    let by_cluster_network_policy: [(&[&str], &[&str]); 4] = [
        (&["client"], &["other"]),
        (&["other"], &["client"]),
        (&["client", "other"], &[]),
        (&["other"], &["client"]),
    ];
    by_cluster_network_policy
        .iter()
        .map(|(denied, admitted)| Trial {
            object: cluster_network_policy(denied),
            admitted,
        })
        .collect()
}

/// A pod that calls, and what it has kept of earlier calls: a socket for each server.
struct Client {
    pod: Pod,
    netns: Netns,
    kept: BTreeMap<IpAddr, UdpSocket>,
}

struct Scene {
    clients: Vec<Client>,
    servers: Vec<Pod>,
    listeners: Vec<Listener>,
    /// Whom each trial has admitted.
    admitted: Vec<&'static [&'static str]>,
}

impl Scene {
    fn set(bed: &Bed) -> Self {
        bed.delete(&["clusternetworkpolicy", CLUSTER_POLICY]);
        bed.namespace(NAMESPACE);
        bed.one_on_each_node(NAMESPACE, &[SERVER, CLIENTS[0], CLIENTS[1]]);
        let servers = bed.pods(NAMESPACE, SERVER);
        let listeners = servers.iter().map(|server| {
            let netns = Netns::of_pod(&bed.cluster, server);
            Listener::start(&netns, PORT).expect("it listens")
        });
        let listeners = listeners.collect();
        let pods = CLIENTS.iter().flat_map(|app| bed.pods(NAMESPACE, app));
        let clients = pods.map(|pod| Client::new(bed, pod, &servers)).collect();
        Self {
            clients,
            servers,
            listeners,
            admitted: Vec::new(),
        }
    }

    /// Every client calls every server, all at once. What went another way than it should.
    fn try_all(&mut self, admitted: &'static [&'static str]) -> Vec<String> {
        self.try_all_within(admitted, ANSWER)
    }

    fn try_all_within(&mut self, admitted: &'static [&'static str], patience: Duration) -> Vec<String> {
        let trial = self.admitted.len();
        self.admitted.push(admitted);
        let servers: Vec<IpAddr> = self
            .servers
            .iter()
            .flat_map(|pod| pod.addresses.clone())
            .collect();
        let servers = servers.as_slice();
        let mut wrong: Vec<String> = thread::scope(|scope| {
            let running: Vec<_> = self
                .clients
                .iter()
                .map(|client| {
                    let patience = admitted.contains(&client.pod.app()).then_some(patience);
                    scope.spawn(move || client.call(trial, servers, patience))
                })
                .collect();
            let ended = running.into_iter().flat_map(|one| one.join().expect("it ends"));
            ended.collect()
        });
        wrong.extend(self.intruders());
        wrong
    }

    /// What servers have got, in this trial or since an earlier one, that was not admitted when it was sent.
    fn intruders(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for listener in &self.listeners {
            for received in listener.received().drain(..) {
                let mut words = received.text.split(' ');
                let (Some(trial), Some(app)) = (words.next(), words.next()) else {
                    continue;
                };
                let trial: usize = trial.parse().expect("a number");
                if !self.admitted[trial].contains(&app) {
                    wrong.push(format!("got through from {}: {}", received.from, received.text));
                }
            }
        }
        wrong
    }

    fn wait_until(&mut self, admitted: &'static [&'static str]) -> Duration {
        let start = Instant::now();
        let mut wrong = Vec::new();
        let done = wait_for("traffic to go as it should", SOON, || {
            wrong = self.try_all_within(admitted, QUICK_ANSWER);
            Ok(wrong.is_empty().then_some(()))
        });
        assert!(done.is_ok(), "{wrong:#?}");
        start.elapsed()
    }
}

impl Client {
    fn new(bed: &Bed, pod: Pod, servers: &[Pod]) -> Self {
        let netns = Netns::of_pod(&bed.cluster, &pod);
        let servers = servers.iter().flat_map(|server| server.addresses.clone());
        let kept = servers.map(|server| {
            let socket = netns.run(|| connected(server)).expect("in the pod");
            (server, socket)
        });
        let kept = kept.collect();
        Self { pod, netns, kept }
    }

    /// Each server by a new socket, by one kept from earlier trials, and by TCP, all at once. `patience` is for the
    /// answers of those that are to answer.
    fn call(&self, trial: usize, servers: &[IpAddr], patience: Option<Duration>) -> Vec<String> {
        let call = || self.call_inside(trial, servers, patience);
        self.netns.run(call).expect("in the pod")
    }

    fn call_inside(&self, trial: usize, servers: &[IpAddr], patience: Option<Duration>) -> Vec<String> {
        let admitted = patience.is_some();
        let mut datagrams = Vec::new();
        let mut connections = Vec::new();
        for &server in servers {
            let new = connected(server);
            let kept = self.kept[&server].try_clone().expect("a socket");
            for (socket, which) in [(new, "new"), (kept, "kept")] {
                let text = format!(
                    "{trial} {} {} to {server}, {which}",
                    self.pod.app(),
                    self.pod.node
                );
                socket.send(text.as_bytes()).expect("sent");
                datagrams.push((socket, text));
            }
            connections.push((connecting(server), server));
        }
        let until = Instant::now() + patience.unwrap_or(SILENCE);
        let mut wrong = Vec::new();
        for (socket, text) in datagrams {
            if admitted && !is_answered(&socket, &text, until) {
                wrong.push(format!("no answer: {text}"));
            }
        }
        if !admitted {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        for (socket, server) in connections {
            if is_connected(&socket, admitted, until) != admitted {
                let what = if admitted { "no connection" } else { "a connection" };
                wrong.push(format!(
                    "{what}: {trial} {} {} to {server}",
                    self.pod.app(),
                    self.pod.node
                ));
            }
        }
        wrong
    }
}

fn any(family_of: IpAddr) -> SocketAddr {
    match family_of {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn connected(server: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind(any(server)).expect("a socket");
    socket.connect((server, PORT)).expect("a route");
    socket
}

/// Answers to other texts are late ones of earlier trials.
fn is_answered(socket: &UdpSocket, text: &str, until: Instant) -> bool {
    let mut buffer = [0; 256];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .expect("a timeout");
        match socket.recv(&mut buffer) {
            Ok(length) if &buffer[..length] == text.as_bytes() => return true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            _ => {}
        }
    }
}

fn connecting(server: IpAddr) -> Socket {
    let address = SocketAddr::from((server, PORT));
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    // It is under way when this returns.
    let _ = socket.connect(&address.into());
    socket
}

fn is_connected(socket: &Socket, wait: bool, until: Instant) -> bool {
    loop {
        if socket.peer_addr().is_ok() {
            return true;
        }
        if !wait || Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Of an object, or of the status of one; `None` where it tells of an earlier generation, or of another object of that
/// name.
fn programmed<'a>(object: &'a Value, of: &Value) -> Option<&'a Value> {
    let uid = match object["kind"] == "PolicyStatus" {
        true => &object["spec"]["policyUID"],
        false => &object["metadata"]["uid"],
    };
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == "Programmed")
        .filter(|condition| {
            *uid == of["metadata"]["uid"] && condition["observedGeneration"] == of["metadata"]["generation"]
        })
}

fn is_true(condition: &Value) -> bool {
    condition["status"] == "True"
}

#[test]
#[ignore = "needs root and a cluster: `cargo xtask e2e`"]
fn what_is_programmed_is_in_force_on_every_node() {
    let bed = Bed::start("truth");
    let mut scene = Scene::set(&bed);
    let statuses = bed.watch(&["policystatus", &format!("--namespace={NAMESPACE}")]);
    let cluster_policies = bed.watch(&["clusternetworkpolicy"]);
    let everybody = &CLIENTS;
    scene.wait_until(everybody);
    let (mut programming, mut deletions) = (Vec::new(), Vec::new());
    let mut wrong = Vec::new();
    let mut number = 0;
    while programming.len() < TRIALS {
        for trial in round(number) {
            let applied = bed.apply(&trial.object);
            let start = Instant::now();
            let watch = match applied["kind"] == "NetworkPolicy" {
                true => &statuses,
                false => &cluster_policies,
            };
            let heard = watch.wait(SOON, |object| {
                programmed(object, &applied).is_some_and(is_true).then_some(())
            });
            if let Err(last) = heard {
                panic!("{} of {applied:#} is not programmed: {last}", applied["kind"]);
            }
            programming.push(start.elapsed());
            for violation in scene.try_all(trial.admitted) {
                eprintln!("trial {}: {violation}", programming.len());
                wrong.push(violation);
            }
        }
        let kind = if number.is_multiple_of(2) {
            "networkpolicy"
        } else {
            "clusternetworkpolicy"
        };
        match kind {
            "networkpolicy" => bed.delete(&[kind, POLICY, &format!("--namespace={NAMESPACE}")]),
            _ => bed.delete(&[kind, CLUSTER_POLICY]),
        }
        deletions.push(scene.wait_until(everybody));
        number += 1;
    }
    times::print(
        "trials; from the answer to a change until it is said to be programmed",
        &mut programming,
    );
    times::print("deletions; from the answer until all is open", &mut deletions);
    bed.delete(&["namespace", NAMESPACE]);
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whose packets have no way back is not heard either (`rp_filter`, RFC 3704).
const STRICT: &str = "net.ipv4.conf.all.rp_filter";

/// Takes the wire between a node and the control plane away: both send, and hear nothing.
struct CutOff<'a> {
    bed: &'a Bed,
    address: String,
}

impl<'a> CutOff<'a> {
    fn new(bed: &'a Bed, node: &str) -> Self {
        let node = bed.cluster.node(node).expect("a node");
        let cut_off = Self {
            bed,
            address: node.addresses[0].to_string(),
        };
        cut_off.set(true);
        cut_off
    }

    fn set(&self, cut: bool) {
        let in_control_plane = |program: &str, arguments: &[&str]| {
            let mut command = self.bed.cluster.in_control_plane(program);
            run(command.args(arguments)).expect(program);
        };
        let strict = format!("{STRICT}={}", u8::from(cut));
        in_control_plane("sysctl", &["-qw", &strict]);
        let what = if cut { "add" } else { "delete" };
        in_control_plane("ip", &["route", what, "blackhole", &self.address]);
    }
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Until the condition names exactly these nodes as cut off.
fn wait_until_named(
    statuses: &Watch,
    policy: &Value,
    nodes: &BTreeSet<&str>,
    patience: Duration,
) -> Duration {
    let start = Instant::now();
    let named = statuses.wait(patience, |object| {
        let condition = programmed(object, policy)?;
        let message = text(&condition["message"]);
        let all = nodes
            .iter()
            .all(|node| message.contains(&format!("{node} (cut off)")));
        let named = all && message.matches("(cut off)").count() == nodes.len();
        let right = if nodes.is_empty() {
            is_true(condition)
        } else {
            condition["status"] == "False" && condition["reason"] == "AgentCutOff"
        };
        (named && right).then(|| eprintln!("{message}"))
    });
    assert!(named.is_ok(), "{nodes:?} are not named: {named:?}");
    start.elapsed()
}

#[test]
#[ignore = "needs root and a cluster: `cargo xtask e2e`"]
fn a_node_that_is_cut_off_is_named_within_its_lease() {
    let bed = Bed::start("truth");
    let mut scene = Scene::set(&bed);
    let statuses = bed.watch(&["policystatus", &format!("--namespace={NAMESPACE}")]);
    let of = |app: &str| json!([{ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }]);
    let policy = bed.apply(&network_policy(&of("client")));
    let none = BTreeSet::new();
    wait_until_named(&statuses, &policy, &none, SOON);
    assert_eq!(scene.try_all(&["client"]), Vec::<String>::new());

    let cut_off = CutOff::new(&bed, "node2");
    let took = wait_until_named(&statuses, &policy, &BTreeSet::from(["node2"]), LEASE + NOTICE);
    eprintln!(
        "a node that hears nothing of the API server is named after {:.1} s",
        took.as_secs_f64()
    );
    assert_eq!(scene.try_all(&["client"]), Vec::<String>::new());
    // What has changed since is not said to be programmed before the node has heard of it.
    let policy = bed.apply(&network_policy(&of("other")));
    wait_until_named(&statuses, &policy, &BTreeSet::from(["node2"]), SOON);
    drop(cut_off);
    let took = wait_until_named(&statuses, &policy, &none, LEASE);
    eprintln!("and no more {:.1} s after it hears again", took.as_secs_f64());
    assert_eq!(scene.try_all(&["other"]), Vec::<String>::new());

    let node = bed.cluster.node("node1").expect("a node");
    let agent = Agent::on(&node);
    agent.suspend();
    let start = Instant::now();
    let policy = bed.apply(&network_policy(&of("client")));
    wait_until_named(&statuses, &policy, &BTreeSet::from(["node1"]), LEASE + NOTICE);
    eprintln!(
        "an agent that stands still is named after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    agent.resume();
    let took = wait_until_named(&statuses, &policy, &none, LEASE);
    eprintln!("and no more {:.1} s after it goes on", took.as_secs_f64());
    assert_eq!(scene.try_all(&["client"]), Vec::<String>::new());
    bed.delete(&["namespace", NAMESPACE]);
}
