//! A cluster comes up, works, and goes. Ignored by default: building one takes minutes, and it needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_e2e::cluster::Cluster;
use weir_e2e::down::down;
use weir_e2e::plan::{ClusterName, Family, Options};
use weir_e2e::process::wait_for;
use weir_e2e::progress::Progress;
use weir_e2e::up::up;
use weir_e2e::{images, kubernetes, network};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the cluster when the test fails, too.
struct Ending(ClusterName);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Err(error) = down(&self.0, Progress::start()) {
            eprintln!("{error:#}");
        }
    }
}

fn answer(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    answer(cluster.kubectl().expect("a cache").args(arguments))
}

/// One pod on each node, in the node's network: it needs no other.
fn manifest() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: hello
spec:
  selector:
    matchLabels: {{app: hello}}
  template:
    metadata:
      labels: {{app: hello}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      tolerations: [{{operator: Exists}}]
      containers:
        - name: hello
          image: {}
          imagePullPolicy: Never
          args: [netexec, --http-port=8080]
          resources:
            limits: {{memory: 100Mi, cpu: 500m}}
          volumeMounts:
            - {{name: cgroup, mountPath: /cgroup}}
            - {{name: bpf, mountPath: /sys/fs/bpf}}
      volumes:
        - {{name: cgroup, hostPath: {{path: /sys/fs/cgroup/unified, type: Directory}}}}
        - {{name: bpf, hostPath: {{path: /sys/fs/bpf, type: Directory}}}}
"#,
        images::AGNHOST
    )
}

/// Names of the pods, by node.
fn pods(cluster: &Cluster) -> Vec<(String, String)> {
    let list = kubernetes::get(cluster, &["pods", "--selector=app=hello"])
        .expect("an answer")
        .expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let pods = list["items"].as_array().expect("items");
    let mut pods: Vec<_> = pods
        .iter()
        .map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["name"])))
        .collect();
    pods.sort();
    pods
}

/// Groups of the cluster in any hierarchy, however deep.
fn control_groups(name: &str) -> Vec<PathBuf> {
    fn look(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_str() == Some(name) {
                    found.push(entry.path());
                }
                look(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

/// Processes that were started with a path below the folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let folder = folder.display().to_string();
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

fn check_pods(cluster: &Cluster) {
    let pods = pods(cluster);
    let nodes: Vec<_> = pods.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, ["node1", "node2", "node3"]);
    for (node, pod) in &pods {
        assert_eq!(
            kubectl(cluster, &["exec", pod, "--", "hostname"]),
            format!("{node}\n")
        );
        let logs = kubectl(cluster, &["logs", pod]);
        assert!(logs.contains("Started HTTP server on port 8080"), "{logs}");
        // The node's own root of control groups, and its own BPF file system: what one node has, no other sees.
        let touch = ["exec", pod, "--", "mkdir", "-p", &format!("/sys/fs/bpf/{node}")];
        kubectl(cluster, &touch);
        let list = ["exec", pod, "--", "sh", "-c", "cd /sys/fs/bpf && echo node*"];
        assert_eq!(kubectl(cluster, &list), format!("{node}\n"));
        let groups = kubectl(cluster, &["exec", pod, "--", "ls", "/cgroup"]);
        assert!(groups.lines().any(|group| group == "kubepods"), "{groups}");
    }
    for node in cluster.nodes() {
        for address in &node.addresses {
            let host = if address.is_ipv6() {
                format!("[{address}]")
            } else {
                address.to_string()
            };
            let url = format!("http://{host}:8080/hostname");
            let mut curl = cluster.in_control_plane("curl");
            assert_eq!(answer(curl.args(["-sS", "--max-time", "5", &url])), node.name);
        }
    }
}

#[test]
#[ignore = "needs root and Kubernetes built: `cargo xtask e2e`"]
fn three_nodes_come_up_run_pods_survive_a_reboot_and_leave_nothing() {
    let name: ClusterName = "lifecycle".parse().expect("a name");
    let ending = Ending(name.clone());
    let options = Options {
        name: name.clone(),
        nodes: 3,
        family: Family::Dual,
    };
    let progress = Progress::start();
    let cluster = up(&options, progress).expect("up");
    let zones = kubectl(
        &cluster,
        &[
            "get",
            "nodes",
            r"--output=jsonpath={.items[*].metadata.labels.topology\.kubernetes\.io/zone}",
        ],
    );
    assert_eq!(zones, "zone-a zone-b zone-c");
    let cidrs = kubectl(
        &cluster,
        &["get", "nodes", "--output=jsonpath={.items[*].spec.podCIDRs[*]}"],
    );
    assert_eq!(
        cidrs
            .split(' ')
            .filter(|cidr| cidr.starts_with("10.244.") && cidr.ends_with("/24"))
            .count(),
        3
    );
    assert_eq!(
        cidrs
            .split(' ')
            .filter(|cidr| cidr.starts_with("fd00:10:244:") && cidr.ends_with("/64"))
            .count(),
        3
    );

    kubernetes::apply(&cluster, &manifest()).expect("applied");
    kubernetes::roll_out(&cluster, "default", "daemonset/hello", PATIENCE).expect("rolled out");
    check_pods(&cluster);

    // A second `up` changes nothing, and one of another shape is refused.
    let before = cluster.node("node1").expect("a node").process();
    up(&options, progress).expect("up already");
    assert_eq!(cluster.node("node1").expect("a node").process(), before);
    let error = up(&Options { nodes: 2, ..options }, progress).expect_err("another shape");
    assert!(error.to_string().contains("another shape"), "{error:#}");

    cluster.reboot("node2", progress).expect("rebooted");
    wait_for("the pod to be started again", PATIENCE, || {
        let restarts = kubectl(
            &cluster,
            &[
                "get",
                "pods",
                "--field-selector=spec.nodeName=node2",
                "--selector=app=hello",
                "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount} \
                 {.items[*].status.containerStatuses[*].ready}",
            ],
        );
        Ok((restarts == "1 true").then_some(()))
    })
    .expect("restarted");
    check_pods(&cluster);

    // Also what others have started in its network goes with it.
    let mut stranger = cluster.in_control_plane("sleep");
    let mut stranger = stranger
        .arg("1000")
        .stdout(Stdio::null())
        .spawn()
        .expect("sleep starts");
    let state = cluster.logs().parent().expect("the state's folder").to_owned();
    assert_ne!(processes_of(&state), Vec::<String>::new());
    assert_ne!(control_groups(&name.prefix()), Vec::<PathBuf>::new());
    let ended = std::thread::spawn(move || stranger.wait());
    drop(ending);
    assert!(!ended.join().expect("waited").expect("ended").success());
    assert_eq!(processes_of(&state), Vec::<String>::new());
    assert_eq!(control_groups(&name.prefix()), Vec::<PathBuf>::new());
    assert_eq!(
        network::existing(&name.prefix()).expect("a list"),
        Vec::<String>::new()
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&state.display().to_string()), "{mounts}");
    let left: Vec<_> = fs::read_dir(&state)
        .expect("the state's folder")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["logs"]);
}
