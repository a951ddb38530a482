//! A pod's network is never open before its policy is in force, and open to what the policy allows once the pod is Ready.
//! Ignored by default: it needs root and a cluster.
//!
//! 200 pods start, ten a second, under a policy that denies everything. Half of them, the subjects, have a label by which
//! another policy lets them talk with friends, in both directions; the others lack it. Each sends with its first
//! instruction; and the test itself sends from the pod's network, and listens in it, from the time at which the network is
//! there, before it has an interface. Friends and strangers, one of each on every node, send to each pod as soon as its
//! network has an address. Strangers and what is outside of the cluster must never hear of a pod, nor a pod of strangers.

mod cluster_bed;
#[path = "no_open_window/newcomer.rs"]
mod newcomer;
#[path = "no_open_window/prober.rs"]
mod prober;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_bed::agent::metrics;
use cluster_bed::listener::{CONNECTION, Listener};
use cluster_bed::netns::Netns;
use cluster_bed::newcomers::Newcomers;
use cluster_bed::pods::{Pod, addresses};
use cluster_bed::{Bed, PATIENCE, times};
use newcomer::{Newcomer, Probe, Target};
use prober::{Probed, Prober};
use serde_json::{Value, json};
use weir_e2e::{images, kubernetes};

const NAMESPACE: &str = "window";
/// No policy is about its pods.
const OUTSIDE: &str = "window-outside";
const FRIEND: &str = "friend";
const STRANGER: &str = "stranger";
const SUBJECT: &str = "subject";
const OTHER: &str = "other";

/// Where everybody listens.
pub(crate) const PORT: u16 = 7000;

const PODS: usize = 200;
const BATCH: usize = 10;
const EVERY: Duration = Duration::from_secs(1);
/// More wait until some are gone: the machine has two nodes and few CPUs.
const MOST_ALIVE: usize = 60;

/// For how long a pod is looked at after it is Ready.
const READY_FOR: Duration = Duration::from_secs(7);

/// The kubelet tells the API server of a pod's addresses when it tells that the pod is Ready: so long may pass until the
/// other nodes know whose they are. Until then they let no policy's peers in.
const KNOWN_ELSEWHERE: Duration = Duration::from_secs(5);

/// What was sent so short before the end may not have been answered yet.
const ANSWER: Duration = Duration::from_millis(500);

fn policies() -> Vec<Value> {
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": spec,
        })
    };
    let with = |role: &str, peer: &str| {
        let peers = json!([{ "podSelector": { "matchLabels": { "app": peer } } }]);
        let ports = json!([{ "protocol": "UDP", "port": PORT }, { "protocol": "TCP", "port": PORT }]);
        json!({
            "podSelector": { "matchLabels": { "app": role } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": peers, "ports": ports }],
            "egress": [{ "to": peers, "ports": ports }],
        })
    };
    vec![
        policy(
            "nothing",
            json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }),
        ),
        policy("subjects", with(SUBJECT, FRIEND)),
        policy("friends", with(FRIEND, SUBJECT)),
    ]
}

/// Its first instruction is to send to everybody.
fn pod(number: usize, targets: &[Target]) -> Value {
    let role = if number.is_multiple_of(2) { SUBJECT } else { OTHER };
    let node = if (number / 2).is_multiple_of(2) {
        "node1"
    } else {
        "node2"
    };
    let sends = targets
        .iter()
        .map(|target| format!("echo first >/dev/udp/{}/{PORT}; ", target.address));
    let script: String = sends.collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number}"), "namespace": NAMESPACE, "labels": { "app": role, "start": "now" },
        },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "first", "image": images::AGNHOST, "imagePullPolicy": "Never",
                "command": ["bash", "-c", format!("{script} exec sleep 1000")],
            }],
        },
    })
}

/// A pod that has become Ready, and its network.
struct Known {
    pod: Pod,
    is_subject: bool,
    ready: Instant,
    created: Instant,
    newcomer: Arc<Newcomer>,
}

/// Those who stay.
struct Residents {
    friends: Vec<Pod>,
    strangers: Vec<Pod>,
    friend_listeners: Vec<Listener>,
    /// The strangers', and one outside of the cluster.
    silent: Vec<(String, Listener)>,
    probers: Vec<Prober>,
    targets: Vec<Target>,
}

impl Residents {
    fn settle(bed: &Bed, probed: &Probed) -> Self {
        let (friends, strangers) = (bed.pods(NAMESPACE, FRIEND), bed.pods(OUTSIDE, STRANGER));
        let listen = |pod: &Pod| {
            let netns = Netns::of_pod(&bed.cluster, pod);
            Listener::start(&netns, PORT).expect("it listens")
        };
        let outside = Netns::of_control_plane(&bed.cluster);
        let mut silent: Vec<_> = strangers
            .iter()
            .map(|pod| (pod.name.clone(), listen(pod)))
            .collect();
        silent.push((
            "outside".to_owned(),
            Listener::start(&outside, PORT).expect("it listens"),
        ));
        let targets_of = |pods: &[Pod], is_friend: bool| -> Vec<Target> {
            let of = |pod: &Pod| -> Vec<Target> {
                let target = |&address: &IpAddr| Target {
                    address,
                    node: pod.node.clone(),
                    is_friend,
                };
                pod.addresses.iter().map(target).collect()
            };
            pods.iter().flat_map(of).collect()
        };
        let mut targets = targets_of(&friends, true);
        targets.extend(targets_of(&strangers, false));
        targets.extend(
            bed.cluster
                .plan()
                .control_plane()
                .into_iter()
                .map(|address| Target {
                    address,
                    node: String::new(),
                    is_friend: false,
                }),
        );
        let probe = |pod: &Pod| {
            let netns = Netns::of_pod(&bed.cluster, pod);
            Prober::start(&netns, pod, pod.namespace == NAMESPACE, probed)
        };
        Self {
            friend_listeners: friends.iter().map(listen).collect(),
            probers: friends.iter().chain(&strangers).map(probe).collect(),
            friends,
            strangers,
            silent,
            targets,
        }
    }

    fn addresses(pods: &[Pod]) -> BTreeSet<IpAddr> {
        pods.iter().flat_map(|pod| pod.addresses.clone()).collect()
    }
}

/// Starts and ends the pods.
struct Course<'a> {
    bed: &'a Bed,
    born: Arc<Mutex<Vec<Arc<Newcomer>>>>,
    created: Vec<Instant>,
    known: BTreeMap<String, Known>,
    /// With the time of their end.
    ended: BTreeMap<String, Instant>,
}

impl Course<'_> {
    fn run(&mut self, targets: &[Target]) {
        let selector = format!("--namespace={NAMESPACE}");
        let watch = self.bed.watch(&["pods", &selector, "--selector=start=now"]);
        let start = Instant::now();
        let mut next = start;
        while self.ended.len() < PODS {
            assert!(
                start.elapsed() < PATIENCE * 4,
                "{} of {PODS} pods have been Ready",
                self.known.len()
            );
            if let Some(event) = watch.next(Duration::from_millis(20)) {
                self.follow(&event.event["object"], event.heard);
            }
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + EVERY;
            self.end_those_seen_enough();
            if self.created.len() < PODS && self.created.len() - self.ended.len() <= MOST_ALIVE - BATCH {
                self.create(targets);
            }
        }
    }

    fn create(&mut self, targets: &[Target]) {
        let first = self.created.len();
        let pods: Vec<Value> = (first..PODS.min(first + BATCH))
            .map(|number| pod(number, targets))
            .collect();
        self.created.extend(pods.iter().map(|_| Instant::now()));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods });
        kubernetes::apply(&self.bed.cluster, &list.to_string()).expect("created");
    }

    fn follow(&mut self, object: &Value, heard: Instant) {
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let is_ready =
            conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let name = object["metadata"]["name"].as_str().expect("a name");
        if !is_ready || self.known.contains_key(name) {
            return;
        }
        let own = addresses(object);
        let born = self.born.lock().expect("no panic");
        let newcomer = born.iter().rev().find(|one| {
            let theirs = one.addresses();
            own.iter().all(|address| theirs.contains(address))
        });
        let newcomer = newcomer.unwrap_or_else(|| panic!("nobody saw the network of {name}: {own:?}"));
        newcomer.set_ready();
        let number: usize = name
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse().ok())
            .expect("a number");
        self.known.insert(
            name.to_owned(),
            Known {
                pod: Pod::of(object),
                is_subject: object["metadata"]["labels"]["app"] == SUBJECT,
                ready: heard,
                created: self.created[number],
                newcomer: Arc::clone(newcomer),
            },
        );
    }

    fn end_those_seen_enough(&mut self) {
        let over: Vec<&Known> = self
            .known
            .values()
            .filter(|known| !self.ended.contains_key(&known.pod.name) && known.ready.elapsed() > READY_FOR)
            .collect();
        if over.is_empty() {
            return;
        }
        let mut delete = vec![
            "delete".to_owned(),
            "pod".to_owned(),
            format!("--namespace={NAMESPACE}"),
            "--wait=false".to_owned(),
        ];
        for known in over {
            known.newcomer.end();
            self.ended.insert(known.pod.name.clone(), Instant::now());
            delete.push(known.pod.name.clone());
        }
        // For the last answers.
        std::thread::sleep(ANSWER);
        let delete: Vec<&str> = delete.iter().map(String::as_str).collect();
        self.bed.kubectl(&delete);
    }
}

/// What got through that no policy allows.
fn intruders(known: &BTreeMap<String, Known>, born: &[Arc<Newcomer>], residents: &Residents) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, listener) in &residents.silent {
        for received in listener.received().iter() {
            wrong.push(format!("{name} heard {} from {}", received.text, received.from));
        }
    }
    let mut by_address = BTreeMap::new();
    for known in known.values() {
        for address in &known.pod.addresses {
            let other = by_address.insert(*address, known);
            assert!(
                other.is_none(),
                "{address} was given twice: too few addresses to tell pods apart"
            );
        }
    }
    let strangers = Residents::addresses(&residents.strangers);
    let friends = Residents::addresses(&residents.friends);
    for listener in &residents.friend_listeners {
        for received in listener.received().iter() {
            match by_address.get(&received.from) {
                Some(known) if known.is_subject => {}
                Some(known) => wrong.push(format!(
                    "a friend heard {} from {}, {:?} after its network was made",
                    received.text,
                    known.pod.name,
                    received.at - known.newcomer.born
                )),
                None => wrong.push(format!(
                    "a friend heard {} from {}, whom nobody knows",
                    received.text, received.from
                )),
            }
        }
    }
    for newcomer in born {
        let of = known
            .values()
            .find(|known| Arc::ptr_eq(&known.newcomer, newcomer));
        for received in newcomer.received().iter() {
            let from_friend = friends.contains(&received.from);
            let wanted = of.is_some_and(|known| known.is_subject) && from_friend;
            if !wanted {
                let from = if strangers.contains(&received.from) {
                    "a stranger"
                } else {
                    "others"
                };
                wrong.push(format!(
                    "{} heard {} from {from}, {}, {:?} after its network was made",
                    of.map_or("a pod", |known| &known.pod.name),
                    received.text,
                    received.from,
                    received.at - newcomer.born
                ));
            }
        }
    }
    wrong
}

/// Between subjects and friends: how long after a pod was Ready something was refused, and what became of the first
/// packets.
#[derive(Debug, Default)]
struct Allowed {
    sent: usize,
    refused: usize,
    /// Of those, later than the other nodes may take to know of the pod.
    refused_late: usize,
    /// From Ready to the last refusal of a pod, for those that had one.
    refused_for: Vec<Duration>,
    /// From the time at which the network had its addresses.
    first: Vec<Duration>,
}

impl Allowed {
    fn add(&mut self, known: &Known, probes: &[Probe], same_node: bool) {
        let until = known.newcomer.ended().expect("it has ended") - ANSWER;
        let after = probes
            .iter()
            .filter(|(sent, _)| *sent > known.ready && *sent < until);
        self.sent += after.clone().count();
        let mut refused = after.filter(|(_, answered)| answered.is_none());
        self.refused += refused.clone().count();
        let known_from = known.ready
            + if same_node {
                Duration::ZERO
            } else {
                KNOWN_ELSEWHERE
            };
        self.refused_late += refused.clone().filter(|(sent, _)| *sent > known_from).count();
        if let Some((last, _)) = refused.next_back() {
            self.refused_for.push(*last - known.ready);
        }
        let first = probes.iter().filter_map(|(_, answered)| *answered).min();
        if let (Some(first), Some(addressed)) = (first, known.newcomer.addressed()) {
            self.first.push(first.saturating_duration_since(addressed));
        }
    }

    fn print(&mut self, what: &str) {
        eprintln!(
            "{what}: {} packets after Ready, {} not answered, {} of them later than other nodes may take",
            self.sent, self.refused, self.refused_late
        );
        times::print(
            "first answers, after the network had its addresses",
            &mut self.first,
        );
        if !self.refused_for.is_empty() {
            times::print("pods with refusals after Ready, up to", &mut self.refused_for);
        }
    }
}

/// How many packets were refused that were not to be.
fn refused(known: &BTreeMap<String, Known>, probed: &Probed, residents: &Residents) -> usize {
    let mut all = BTreeMap::<(&str, bool), Allowed>::new();
    for known in known.values().filter(|known| known.is_subject) {
        for (target, probes) in residents.targets.iter().zip(known.newcomer.probes().iter()) {
            if target.is_friend {
                let same = target.node == known.pod.node;
                all.entry(("from a subject to a friend", same))
                    .or_default()
                    .add(known, probes, same);
            }
        }
        for prober in residents.probers.iter().filter(|prober| prober.is_friend) {
            for address in &known.pod.addresses {
                let same = prober.node == known.pod.node;
                let probes = probed.of(&prober.name, *address);
                all.entry(("from a friend to a subject", same))
                    .or_default()
                    .add(known, &probes, same);
            }
        }
    }
    for ((what, same), allowed) in &mut all {
        let place = if *same { "on one node" } else { "between nodes" };
        allowed.print(&format!("{what}, {place}"));
        assert!(allowed.sent > 1000, "too few to tell: {allowed:?}");
    }
    all.values().map(|allowed| allowed.refused_late).sum()
}

/// How many requests of the plugin the agents have answered, and in how long.
fn print_cost(bed: &Bed, before: &[BTreeMap<String, f64>]) {
    const NAME: &str = "weir_cni_request_duration_seconds";
    let after: Vec<_> = bed
        .cluster
        .nodes()
        .iter()
        .map(|node| metrics(bed, node))
        .collect();
    let total = |series: &str| -> f64 {
        let of =
            |all: &[BTreeMap<String, f64>]| -> f64 { all.iter().filter_map(|one| one.get(series)).sum() };
        of(&after) - of(before)
    };
    for verb in ["add", "del"] {
        for result in ["success", "failure"] {
            let labels = format!(r#"result="{result}",verb="{verb}""#);
            let count = total(&format!("{NAME}_count{{{labels}}}"));
            if count == 0.0 {
                continue;
            }
            let mean = total(&format!("{NAME}_sum{{{labels}}}")) / count;
            let bounds = (0..16).map(|power| 0.001 * f64::from(1 << power));
            let up_to = |share: f64| {
                let mut bounds = bounds.clone();
                let bound = bounds.find(|bound| {
                    total(&format!(r#"{NAME}_bucket{{{labels},le="{bound}"}}"#)) >= share * count
                });
                bound.map_or("more".to_owned(), |bound| format!("{:.0} ms", bound * 1e3))
            };
            eprintln!(
                "CNI {verb}, {result}: {count} answers, mean {:.1} ms, median up to {}, 99 % up to {}",
                mean * 1e3,
                up_to(0.5),
                up_to(0.99)
            );
        }
    }
}

#[test]
#[ignore = "needs root and a cluster: `cargo xtask e2e`"]
fn no_packet_gets_through_before_its_policy_and_none_is_refused_after_ready() {
    let bed = Bed::start("window");
    bed.namespace(NAMESPACE);
    bed.namespace(OUTSIDE);
    for policy in policies() {
        bed.apply(&policy);
    }
    bed.one_on_each_node(NAMESPACE, &[FRIEND]);
    bed.one_on_each_node(OUTSIDE, &[STRANGER]);
    let namespace = format!("--namespace={NAMESPACE}");
    let friends = ["policystatus/friends", namespace.as_str()];
    kubernetes::wait(&bed.cluster, "Programmed", PATIENCE, &friends).expect("programmed");

    let probed = Probed::default();
    let residents = Residents::settle(&bed, &probed);
    let born = Arc::<Mutex<Vec<Arc<Newcomer>>>>::default();
    let newcomers: Vec<Newcomers> = bed
        .cluster
        .nodes()
        .iter()
        .map(|node| {
            let (born, name) = (Arc::clone(&born), node.name.clone());
            let (targets, probed) = (residents.targets.clone(), probed.clone());
            Newcomers::watch(node, move |netns| {
                let newcomer = Newcomer::receive(netns, &name, &targets, &probed);
                born.lock().expect("no panic").push(newcomer);
            })
        })
        .collect();
    let before: Vec<_> = bed
        .cluster
        .nodes()
        .iter()
        .map(|node| metrics(&bed, node))
        .collect();
    let mut course = Course {
        bed: &bed,
        born: Arc::clone(&born),
        created: Vec::new(),
        known: BTreeMap::new(),
        ended: BTreeMap::new(),
    };
    course.run(&residents.targets);
    let known = course.known;
    drop(newcomers);

    let mut starts: Vec<Duration> = known.values().map(|known| known.ready - known.created).collect();
    times::print("pods Ready, from their creation", &mut starts);
    let mut networks: Vec<Duration> = known
        .values()
        .filter_map(|known| Some(known.newcomer.addressed()? - known.newcomer.born))
        .collect();
    times::print("networks with addresses, from their making", &mut networks);
    print_cost(&bed, &before);
    let first = |listener: &Listener| {
        let received = listener.received();
        received
            .iter()
            .filter(|received| received.text.trim_end() == "first")
            .count()
    };
    let heard: usize = residents.friend_listeners.iter().map(first).sum();
    let subjects = known.values().filter(|known| known.is_subject).count();
    eprintln!(
        "of the first packets of {subjects} subjects to friends, {heard} of {} got through",
        subjects * residents.targets.iter().filter(|target| target.is_friend).count()
    );
    let connections = residents.friend_listeners.iter().map(|listener| {
        let received = listener.received();
        received
            .iter()
            .filter(|received| received.text == CONNECTION)
            .count()
    });
    let connections: usize = connections.sum();
    let not_connected: Vec<String> = known
        .values()
        .filter(|known| known.is_subject)
        .flat_map(|known| known.newcomer.not_connected())
        .collect();
    eprintln!(
        "{connections} connections after Ready, {} not made at once",
        not_connected.len()
    );
    let refused = refused(&known, &probed, &residents);
    let wrong = intruders(&known, &born.lock().expect("no panic"), &residents);
    for namespace in [NAMESPACE, OUTSIDE] {
        bed.delete(&["namespace", namespace, "--wait=false"]);
    }
    assert_eq!(known.len(), PODS);
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!((refused, not_connected), (0, Vec::<String>::new()));
}
