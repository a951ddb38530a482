//! Weir is taken off a cluster on which pods run, as `charts/weir/README.md` tells, and put back. Ignored by default: it
//! needs root and a cluster.
//!
//! On the cluster that the environment variable `WEIR_E2E_CLUSTER` names, or on one of its own.

mod cluster_bed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use cluster_bed::listener::Listener;
use cluster_bed::netns::Netns;
use cluster_bed::pods::Pod;
use cluster_bed::{Bed, PATIENCE, checkout};
use serde_json::{Value, json};
use weir_e2e::install::{Weir, install};
use weir_e2e::node::Spec;
use weir_e2e::process::{output, wait_for};
use weir_e2e::progress::Progress;
use weir_e2e::{images, kubernetes};

const NAMESPACE: &str = "uninstall";
const SYSTEM: &str = "--namespace=weir-system";
const UNINSTALL: &str = "daemonset/weir-uninstall";

/// Where the servers listen, and the Service for them.
const PORT: u16 = 8080;
const SERVICE_PORT: u16 = 80;

/// How long a connection may take that comes about.
const ANSWER: Duration = Duration::from_secs(1);

/// For what Weir does.
const SOON: Duration = Duration::from_secs(15);

/// Who reaches whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Connection {
    from: String,
    node: String,
    to: String,
    address: IpAddr,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The policy holds, Services and other nodes are reached.
    InForce,
    /// Everybody reaches who is on the same node, and nobody else.
    Removed,
}

impl State {
    fn admits(self, connection: &Connection) -> bool {
        match self {
            Self::InForce => connection.from == "client",
            Self::Removed => connection.to == connection.node,
        }
    }
}

struct Pods {
    clients: Vec<Pod>,
    servers: Vec<Pod>,
    service: Vec<IpAddr>,
}

impl Pods {
    fn find(bed: &Bed) -> Self {
        let pods = |app| bed.pods(NAMESPACE, app);
        let service = bed.get(&["service", "server", &format!("--namespace={NAMESPACE}")]);
        let addresses = service["spec"]["clusterIPs"].as_array().expect("addresses");
        let address = |text: &Value| text.as_str().expect("a text").parse().expect("an address");
        Self {
            clients: [pods("client"), pods("other")].concat(),
            servers: pods("server"),
            service: addresses.iter().map(address).collect(),
        }
    }

    /// Listens in the servers' place.
    fn listen(&self, bed: &Bed) -> Vec<Listener> {
        let netns = self.servers.iter().map(|pod| Netns::of_pod(&bed.cluster, pod));
        netns
            .map(|netns| Listener::start(&netns, PORT).expect("it listens"))
            .collect()
    }

    /// Whether each connection came about that there could be.
    fn connections(&self, bed: &Bed) -> BTreeMap<Connection, bool> {
        let servers = self.servers.iter().flat_map(|server| {
            let addresses = server.addresses.iter();
            addresses.map(|address| (server.node.as_str(), SocketAddr::new(*address, PORT)))
        });
        let service = self.service.iter();
        let service = service.map(|address| ("service", SocketAddr::new(*address, SERVICE_PORT)));
        let targets: Vec<(&str, SocketAddr)> = servers.chain(service).collect();
        let from = |pod: &Pod| -> Vec<(Connection, bool)> {
            let netns = Netns::of_pod(&bed.cluster, pod);
            let (_, app) = pod.workload.as_ref().expect("a controller");
            let each = targets.iter().map(|(to, address)| {
                let connection = Connection {
                    from: app.clone(),
                    node: pod.node.clone(),
                    to: (*to).to_owned(),
                    address: address.ip(),
                };
                let connect = || TcpStream::connect_timeout(address, ANSWER).is_ok();
                (connection, netns.run(connect).expect("the pod's network"))
            });
            each.collect()
        };
        thread::scope(|scope| {
            let running: Vec<_> = self
                .clients
                .iter()
                .map(|pod| scope.spawn(move || from(pod)))
                .collect();
            let ended = running.into_iter().flat_map(|one| one.join().expect("it ends"));
            ended.collect()
        })
    }

    #[track_caller]
    fn expect(&self, bed: &Bed, state: State) {
        let mut wrong = Vec::new();
        let done = wait_for("connections to go as they should", SOON, || {
            let connections = self.connections(bed).into_iter();
            wrong = connections
                .filter(|(connection, came)| state.admits(connection) != *came)
                .collect();
            Ok(wrong.is_empty().then_some(()))
        });
        assert!(done.is_ok(), "{state:?}: {wrong:#?}");
    }
}

fn policies() -> [Value; 4] {
    let client = json!({ "matchLabels": { "app": "client" } });
    let metadata = json!({ "name": "uninstall" });
    [
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "uninstall", "namespace": NAMESPACE },
            "spec": {
                "podSelector": { "matchLabels": { "app": "server" } },
                "policyTypes": ["Ingress"],
                "ingress": [{ "from": [{ "podSelector": client }] }],
            },
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": metadata,
            "spec": {
                "tier": "Admin", "priority": 7,
                "subject": { "namespaces": { "matchLabels": { "kubernetes.io/metadata.name": "nowhere" } } },
                "egress": [{ "action": "Deny", "to": [{ "networks": ["192.0.2.0/24"] }] }],
            },
        }),
        json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": metadata,
            "spec": { "capacity": { "flows": 65536 } },
        }),
        json!({
            "apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "FlowLogPolicy", "metadata": metadata,
            "spec": { "verdicts": ["Allow", "Deny"] },
        }),
    ]
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "server", "namespace": NAMESPACE },
        "spec": {
            "selector": { "app": "server" }, "ipFamilyPolicy": "PreferDualStack",
            "ports": [{ "port": SERVICE_PORT, "targetPort": PORT }],
        },
    })
}

/// A pod that is to start whatever its node is like.
fn late(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "late", "namespace": NAMESPACE },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0, "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "pause", "image": images::PAUSE, "imagePullPolicy": "Never" }],
        },
    })
}

fn wait_until_programmed(bed: &Bed) {
    for (kind, name) in [
        ("policystatus", "uninstall"),
        ("clusternetworkpolicy", "uninstall"),
        ("dataplaneconfig", "uninstall"),
        ("flowlogpolicy", "uninstall"),
    ] {
        wait_for(&format!("{kind} {name}"), PATIENCE, || {
            let object = bed.get(&[kind, name, &format!("--namespace={NAMESPACE}")]);
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            Ok(conditions
                .any(|one| one["type"] == "Programmed" && one["status"] == "True")
                .then_some(()))
        })
        .expect("programmed");
    }
}

fn wait_until_gone(bed: &Bed, arguments: &[&str]) {
    wait_for(&format!("{arguments:?} to be gone"), PATIENCE, || {
        // Of an empty list, kubectl says nothing.
        Ok(bed.get(arguments).is_null().then_some(()))
    })
    .expect("gone");
}

/// What there is of Weir on a node, by what it is.
fn on_node(node: &Spec) -> BTreeMap<&'static str, BTreeSet<String>> {
    let run = |program: &str, arguments: &[&str]| -> Vec<String> {
        let mut command = node.command(program).expect("the node runs");
        let text = output(command.args(arguments)).expect("an answer");
        String::from_utf8(text)
            .expect("UTF-8")
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let find = |arguments: &str| {
        let shell = format!("find {arguments} 2>/dev/null || true");
        run("sh", &["-c", &shell])
            .into_iter()
            .collect::<BTreeSet<String>>()
    };
    let of_interfaces = run("bpftool", &["net", "show"]).into_iter();
    let of_interfaces = of_interfaces.filter(|line| line.contains("prog_id") || line.contains(" id "));
    let of_cgroups = run("bpftool", &["cgroup", "tree", "/sys/fs/cgroup/unified"]).into_iter();
    let of_cgroups = of_cgroups.filter(|line| line.contains("cgroup_inet"));
    // By the number that Weir's routes carry.
    let routes = |family: &str| run("ip", &[family, "route", "show", "table", "all", "proto", "88"]);
    BTreeMap::from([
        ("programs", of_interfaces.chain(of_cgroups).collect()),
        ("pins", find("/sys/fs/bpf -mindepth 1 -not -name '*.*'")),
        (
            "routes",
            [routes("-4"), routes("-6")].concat().into_iter().collect(),
        ),
        (
            "tunnels",
            run("ip", &["-o", "link", "show", "type", "vxlan"])
                .into_iter()
                .collect(),
        ),
        ("plugin", find("/etc/cni/net.d /opt/cni/bin/weir-cni -type f")),
        ("run", find("/run/weir -mindepth 1")),
        ("records", find("/var/lib/weir -type f")),
    ])
}

/// What the node calls the BPF file system at the usual place, if one is mounted there.
fn bpffs(node: &Spec) -> Option<String> {
    let mut command = node.command("cat").expect("the node runs");
    let mounts = output(command.arg("/proc/mounts")).expect("its mounts");
    let mounts = String::from_utf8(mounts).expect("UTF-8");
    let source = |line: &str| -> Option<String> {
        let mut fields = line.split(' ');
        let (source, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (point == "/sys/fs/bpf" && kind == "bpf").then(|| source.to_owned())
    };
    mounts.lines().filter_map(source).next_back()
}

/// With records of so many pods, and nothing else.
fn expect_nothing(node: &Spec, pods: usize) {
    let mut found = on_node(node);
    let records = found.remove("records").expect("a list");
    assert_eq!(records.len(), pods, "{}: {records:#?}", node.name);
    for record in records {
        assert!(record.starts_with("/var/lib/weir/cni/attachments/"), "{record}");
    }
    assert_ne!(bpffs(node).as_deref(), Some("weir"), "{}", node.name);
    let left: Vec<_> = found.iter().filter(|(_, found)| !found.is_empty()).collect();
    assert!(left.is_empty(), "{}: {left:#?}", node.name);
}

/// Objects whose names tell that they are of Weir, of every kind that the API server has. Events are of the past.
fn in_api(bed: &Bed) -> BTreeSet<String> {
    let kinds = bed.kubectl(&["api-resources", "--verbs=list", "--output=name"]);
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && !kind.starts_with("componentstatuses"))
        .collect();
    let names = bed.kubectl(&["get", &kinds.join(","), "--all-namespaces", "--output=name"]);
    names
        .lines()
        .filter(|name| name.contains("weir"))
        .map(str::to_owned)
        .collect()
}

fn path(of: &str) -> String {
    checkout().join(of).display().to_string()
}

/// As an overlay does: the images of this checkout carry another tag.
fn uninstall_manifest(bed: &Bed) -> (tempfile::TempDir, String) {
    let text = bed.kubectl(&["kustomize", &path("config/uninstall")]);
    let mended = text.replace("image: weir/agent:0.1.0", "image: weir/agent:dev");
    assert_ne!(mended, text);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("uninstall.yaml");
    std::fs::write(&file, mended).expect("written");
    let file = file.display().to_string();
    (folder, file)
}

/// Pods of all namespaces on a node that have an interface of Weir's.
fn pods_of_network(bed: &Bed, node: &Spec) -> usize {
    let here = format!("--field-selector=spec.nodeName={}", node.name);
    let pods = bed.get(&["pods", "--all-namespaces", &here]);
    let pods = pods["items"].as_array().expect("items");
    let has_one = |pod: &&Value| pod["spec"]["hostNetwork"] != true && pod["status"]["podIP"].is_string();
    pods.iter().filter(has_one).count()
}

fn set_up(bed: &Bed) {
    bed.namespace(NAMESPACE);
    bed.one_on_each_node(NAMESPACE, &["server", "client", "other"]);
    bed.apply(&service());
    for policy in policies() {
        bed.apply(&policy);
    }
    wait_until_programmed(bed);
}

/// The last step of the README for the objects.
fn clear_statuses(bed: &Bed) {
    for policy in bed
        .kubectl(&["get", "clusternetworkpolicies", "--output=name"])
        .lines()
    {
        let patch = r#"{"status":{"conditions":[]}}"#;
        bed.kubectl(&[
            "patch",
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
            policy,
        ]);
    }
    let definitions = bed.kubectl(&["get", "crd", "--output=name"]);
    let own = definitions
        .lines()
        .filter(|name| name.ends_with(".dataplane.weir.dev"));
    let own: Vec<&str> = own.collect();
    assert_eq!(own.len(), 6, "{own:?}");
    bed.kubectl(&[&["delete"], own.as_slice()].concat());
}

#[test]
#[ignore = "needs root and Kubernetes built: `cargo xtask e2e`"]
fn weir_goes_and_comes_back_while_pods_run() {
    let bed = Bed::start("uninstall");
    let nodes = bed.cluster.nodes();
    set_up(&bed);
    let pods = Pods::find(&bed);
    let _listeners = pods.listen(&bed);
    pods.expect(&bed, State::InForce);
    for node in &nodes {
        let found = on_node(node);
        for what in ["programs", "pins", "routes", "plugin", "run", "records"] {
            assert!(!found[what].is_empty(), "{}: {what}", node.name);
        }
    }

    // Agents and operator go: what is in the kernel stays, and no pod starts.
    bed.kubectl(&[
        "delete",
        "--wait",
        "--filename",
        &path("config/default/weir.yaml"),
    ]);
    wait_until_gone(&bed, &["pods", SYSTEM]);
    pods.expect(&bed, State::InForce);
    let started = |name: &str| {
        let pod = bed.get(&["pod", name, &format!("--namespace={NAMESPACE}")]);
        pod["status"]["phase"] == "Running"
    };
    bed.apply(&late(&nodes[0].name));
    thread::sleep(Duration::from_secs(5));
    assert!(!started("late"));

    // The nodes are cleaned: nothing is denied, and nothing is routed.
    let (_folder, uninstall) = uninstall_manifest(&bed);
    bed.kubectl(&["apply", "--filename", &uninstall]);
    kubernetes::roll_out(&bed.cluster, "weir-system", UNINSTALL, PATIENCE).expect("every node is clean");
    pods.expect(&bed, State::Removed);
    for node in &nodes {
        expect_nothing(node, pods_of_network(&bed, node));
    }
    bed.kubectl(&["delete", "--wait", "--filename", &uninstall]);
    kubernetes::wait(&bed.cluster, "Ready=False", PATIENCE, &["node", "--all"]).expect("no network plugin");

    // And so are the objects.
    clear_statuses(&bed);
    let policy = bed.get(&["clusternetworkpolicy", "uninstall"]);
    assert_eq!(policy["status"]["conditions"], json!([]));
    let leases = nodes
        .iter()
        .map(|node| format!("lease.coordination.k8s.io/weir-agent-{}", node.name));
    let mut expected: BTreeSet<String> = leases.collect();
    expected.insert("lease.coordination.k8s.io/weir-operator".to_owned());
    expected.insert("namespace/weir-system".to_owned());
    assert_eq!(in_api(&bed), expected);
    bed.kubectl(&[
        "taint",
        "nodes",
        "--all",
        "dataplane.weir.dev/not-ready:NoSchedule",
    ]);
    bed.kubectl(&["taint", "nodes", "--all", "dataplane.weir.dev/not-ready-"]);
    bed.kubectl(&["delete", "namespace", "weir-system"]);
    assert_eq!(in_api(&bed), BTreeSet::new());

    // A pod that ends without a network plugin is taken down by the next one.
    let own = format!("--namespace={NAMESPACE}");
    let deleted = pods.clients.last().expect("a pod");
    bed.kubectl(&["delete", "pod", &own, "--wait=false", &deleted.name]);

    // Nodes on which nobody mounts a BPF file system: one that ended with the agent's pod would not be seen here.
    for node in &nodes {
        if bpffs(node).is_some() {
            output(node.command("umount").expect("the node runs").arg("/sys/fs/bpf")).expect("unmounted");
        }
        assert_eq!(bpffs(node), None, "{}", node.name);
    }

    // It comes back, and the pods are those that ran.
    let weir = Weir {
        images: checkout().join("target/images"),
        manifests: checkout().join("config/default"),
    };
    install(&bed.cluster, &weir, Progress::start()).expect("installed again");
    for policy in policies() {
        bed.apply(&policy);
    }
    wait_until_programmed(&bed);
    wait_until_gone(
        &bed,
        &[
            "pods",
            &own,
            &format!("--field-selector=metadata.name={}", deleted.name),
        ],
    );
    wait_for("the pod that came late", PATIENCE, || {
        Ok(started("late").then_some(()))
    })
    .expect("it runs");
    kubernetes::roll_out(&bed.cluster, NAMESPACE, "daemonset/other", PATIENCE).expect("all run");
    let again = Pods::find(&bed);
    assert_eq!(again.servers, pods.servers);
    again.expect(&bed, State::InForce);
    for node in &nodes {
        assert_eq!(bpffs(node).as_deref(), Some("weir"), "{}", node.name);
        assert!(!on_node(node)["pins"].is_empty(), "{}", node.name);
    }
    let all = bed.get(&["pods", &own]);
    let all: Vec<IpAddr> = all["items"]
        .as_array()
        .expect("items")
        .iter()
        .flat_map(cluster_bed::pods::addresses)
        .collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");

    bed.delete(&["namespace", NAMESPACE]);
    for kind in ["clusternetworkpolicy", "dataplaneconfig", "flowlogpolicy"] {
        bed.delete(&[kind, "uninstall"]);
    }
}
