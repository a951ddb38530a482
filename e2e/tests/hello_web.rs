//! The example of `config/samples/cluster`, step by step as a person follows it. Ignored by default: it needs root and
//! a cluster.
//!
//! On the cluster that the environment variable [`CLUSTER`] names, or on one of its own. What the samples make is
//! deleted before and after.

mod cluster_bed;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use cluster_bed::pods::Pod;
use cluster_bed::{Bed, PATIENCE, checkout};
use serde_json::{Value, json};
use weir_e2e::kubernetes;
use weir_e2e::process::wait_for;

/// For what Weir does.
const SOON: Duration = Duration::from_secs(15);

const NAMESPACE: &str = "hello";
const POLICY: &str = "hello-web-allow-from-foo";

/// curl's, when the time is over.
const TIMED_OUT: i32 = 28;

impl Bed {
    fn apply_samples(&self, samples: &[String]) {
        for sample in samples {
            self.kubectl(&["apply", "--filename", sample]);
        }
    }

    fn delete_samples(&self) -> Output {
        let folder = samples_folder();
        self.run(&["delete", "--ignore-not-found", "--filename", &folder])
    }

    fn wait(&self, namespace: &str, object: &str) {
        let namespace = format!("--namespace={namespace}");
        for condition in ["create", "condition=Programmed"] {
            let condition = format!("--for={condition}");
            self.kubectl(&["wait", &namespace, &condition, "--timeout=30s", object]);
        }
    }

    /// The words of the lines that `kubectl get` prints, but for how old an object is.
    fn table(&self, arguments: &[&str]) -> Vec<Vec<String>> {
        let text = self.kubectl(&[&["get"], arguments].concat());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        let mut lines: Vec<Vec<String>> = text.lines().map(words).collect();
        for line in &mut lines {
            line.pop();
        }
        lines
    }

    /// What became of every call of a client, in their order.
    fn calls(&self, client: &Pod, calls: &[Call]) -> Vec<Result<String, Option<i32>>> {
        let namespace = format!("--namespace={NAMESPACE}");
        let calls = calls.iter().map(|call| {
            let curl = ["curl", "-sS", "--max-time", "1", call.family, &call.url];
            let exec = ["exec", &namespace, &client.name, "--"];
            let output = self.run(&[&exec[..], &curl].concat());
            match output.status.success() {
                true => Ok(String::from_utf8(output.stdout).expect("UTF-8")),
                false => Err(output.status.code()),
            }
        });
        calls.collect()
    }

    /// Calls that went another way than they should have.
    fn wrong(&self, clients: &[Pod], calls: &[Call], admitted: bool) -> Vec<String> {
        let wrong_of = |client: &Pod| -> Vec<String> {
            let answers = self.calls(client, calls);
            let wrong = calls.iter().zip(answers).filter(|(call, answer)| match answer {
                Ok(name) => !admitted || !call.answers.contains(name),
                Err(code) => admitted || *code != Some(TIMED_OUT),
            });
            wrong
                .map(|(call, answer)| format!("{} on {}: {call:?}: {answer:?}", client.name, client.node))
                .collect()
        };
        thread::scope(|scope| {
            let running: Vec<_> = clients
                .iter()
                .map(|client| scope.spawn(move || wrong_of(client)))
                .collect();
            running
                .into_iter()
                .flat_map(|one| one.join().expect("it ends"))
                .collect()
        })
    }

    fn assert_admitted(&self, clients: &[Pod], calls: &[Call], admitted: bool) {
        assert_eq!(self.wrong(clients, calls, admitted), Vec::<String>::new());
    }

    fn wait_until_admitted(&self, clients: &[Pod], calls: &[Call], admitted: bool) {
        let mut wrong = Vec::new();
        let done = wait_for("calls to go as they should", SOON, || {
            wrong = self.wrong(clients, calls, admitted);
            Ok(wrong.is_empty().then_some(()))
        });
        assert!(done.is_ok(), "{wrong:#?}");
    }

    /// Gives a pod a label, `key=value`.
    fn label(&self, pod: &Pod, label: &str) {
        let namespace = format!("--namespace={NAMESPACE}");
        self.kubectl(&["label", &namespace, "--overwrite", "pod", &pod.name, label]);
    }

    /// What the nodes have logged of the policy and the servers, each record once, without what differs from run to
    /// run.
    fn records(&self, servers: &[Pod]) -> BTreeSet<String> {
        let mut records = BTreeSet::new();
        for server in servers {
            let node = self.cluster.node(&server.node).expect("a node");
            let mut cat = node.command("cat").expect("it runs");
            let log = answer(cat.arg("/var/log/network/policy_action.log"));
            let lines = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
            let own = lines.filter(|record: &Value| record["dest"]["pod_name"] == server.name.as_str());
            records.extend(own.map(without_the_passing));
        }
        records
    }
}

/// Deletes what the samples made when the test is over.
struct Samples<'a>(&'a Bed);

impl Drop for Samples<'_> {
    fn drop(&mut self) {
        let deleted = self.0.delete_samples();
        if !deleted.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&deleted.stderr));
        }
    }
}

/// A pod as a record on that node tells of it: of other nodes' pods an agent does not know the controllers.
fn party(pod: &Pod, node: &str) -> Value {
    let mut party = json!({
        "pod_name": pod.name, "node_name": pod.node, "pod_namespace": NAMESPACE, "namespace": NAMESPACE,
    });
    if let Some((kind, name)) = pod.workload.as_ref().filter(|_| pod.node == node) {
        party["workload_kind"] = json!(kind);
        party["workload_name"] = json!(name);
    }
    party
}

#[derive(Debug)]
struct Call {
    /// As curl's option.
    family: &'static str,
    url: String,
    /// Who may answer.
    answers: BTreeSet<String>,
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6" } else { "-4" }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V6(address) => format!("[{address}]"),
        IpAddr::V4(address) => address.to_string(),
    }
}

/// The Service by its name and its addresses, and each server itself.
fn calls(bed: &Bed, servers: &[Pod]) -> Vec<Call> {
    let namespace = format!("--namespace={NAMESPACE}");
    let service = kubernetes::get(&bed.cluster, &["service", "hello-web", &namespace]);
    let service = service.expect("an answer").expect("a Service");
    let addresses = service["spec"]["clusterIPs"].as_array().expect("addresses");
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let any: BTreeSet<String> = servers.iter().map(|server| server.name.clone()).collect();
    let mut calls = Vec::new();
    let addresses = addresses.iter().map(|address| address.as_str().expect("a text"));
    for address in addresses.map(|text| text.parse().expect("an address")) {
        for host in ["hello-web".to_owned(), host(address)] {
            calls.push(Call {
                family: family(address),
                url: format!("http://{host}/hostname"),
                answers: any.clone(),
            });
        }
    }
    for server in servers {
        calls.extend(server.addresses.iter().map(|&address| Call {
            family: family(address),
            url: format!("http://{}:8080/hostname", host(address)),
            answers: BTreeSet::from([server.name.clone()]),
        }));
    }
    calls
}

/// What is to be in the logs once every client has called every server.
fn expected_records(servers: &[Pod], admitted: &[Pod], denied: &[Pod]) -> BTreeSet<String> {
    let mut records = BTreeSet::new();
    for server in servers {
        let clients = admitted.iter().map(|client| (client, true));
        for (client, allow) in clients.chain(denied.iter().map(|client| (client, false))) {
            for (from, to) in client.addresses.iter().zip(&server.addresses) {
                let mut record = json!({
                    "connection": {
                        "src_ip": from, "dest_ip": to, "dest_port": 8080, "protocol": "tcp", "direction": "ingress",
                    },
                    "disposition": if allow { "allow" } else { "deny" },
                    "policies": [{ "kind": "NetworkPolicy", "name": POLICY, "namespace": NAMESPACE }],
                    "src": party(client, &server.node),
                    "dest": party(server, &server.node),
                    "node_name": server.node,
                    "reason": if allow { "allowed" } else { "isolated" },
                });
                if allow {
                    record["rule"] = json!("ingress[0]");
                }
                records.insert(record.to_string());
            }
        }
    }
    records
}

/// Source ports, which one connection has and folded denials have not, numbers and times.
fn without_the_passing(mut record: Value) -> String {
    let fields = record.as_object_mut().expect("an object");
    assert!(fields.remove("timestamp").is_some_and(|time| time.is_string()));
    assert!(fields.remove("seq").is_some_and(|seq| seq.as_u64() > Some(0)));
    assert!(
        fields
            .remove("count")
            .is_some_and(|count| count.as_u64() > Some(0))
    );
    fields.remove("lost");
    record["connection"]
        .as_object_mut()
        .expect("an object")
        .remove("src_port");
    record.to_string()
}

fn answer(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn samples_folder() -> String {
    checkout().join("config/samples/cluster").display().to_string()
}

/// In the order in which kubectl takes them: those that no NetworkPolicy follows, and the rest.
fn samples() -> (Vec<String>, Vec<String>) {
    let entries = std::fs::read_dir(samples_folder()).expect("samples");
    let mut samples: Vec<String> = entries
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .collect();
    samples.sort();
    let policy = samples
        .iter()
        .position(|sample| sample.ends_with("-networkpolicy.yaml"));
    let rest = samples.split_off(policy.expect("a NetworkPolicy"));
    (samples, rest)
}

fn assert_tables(bed: &Bed) {
    let rows = |lines: &[&str]| -> Vec<Vec<String>> {
        let words = |line: &&str| line.split(' ').map(str::to_owned).collect();
        lines.iter().map(words).collect()
    };
    // The cluster may have objects of others.
    let header_and = |mut table: Vec<Vec<String>>, namespaces: bool| {
        let own = |line: &Vec<String>| line.first().is_some_and(|word| word == NAMESPACE);
        let mut index = 0;
        table.retain(|line| {
            index += 1;
            index == 1 || !namespaces || own(line)
        });
        table
    };
    assert_eq!(
        header_and(bed.table(&["policystatus", "--all-namespaces"]), true),
        rows(&[
            "NAMESPACE NAME ACCEPTED PROGRAMMED NODES",
            "hello hello-web-allow-from-foo True True 2/2"
        ])
    );
    assert_eq!(
        bed.table(&["dataplaneconfig", "zone-a"]),
        rows(&[
            "NAME PRECEDENCE ACCEPTED PROGRAMMED DEGRADED NODES",
            "zone-a 10 True True False 1/1"
        ])
    );
    assert_eq!(
        bed.table(&["flowlogpolicy", "everything"]),
        rows(&[
            "NAME ACCEPTED PROGRAMMED DEGRADED NODES",
            "everything True True False 2/2"
        ])
    );
    assert_eq!(
        bed.table(&["cnp", "quarantine"]),
        rows(&["NAME TIER PRIORITY", "quarantine Admin 10"])
    );
}

#[test]
#[ignore = "needs root and a cluster: `cargo xtask e2e`"]
fn a_policy_admits_one_client_and_the_logs_and_statuses_say_so() {
    let bed = Bed::start("hello-web");
    bed.delete_samples();
    let _samples = Samples(&bed);
    let (before, rest) = samples();
    bed.apply_samples(&before);
    for object in ["deployment/hello-web", "daemonset/foo", "daemonset/other"] {
        kubernetes::roll_out(&bed.cluster, NAMESPACE, object, PATIENCE).expect("rolled out");
    }
    bed.wait(NAMESPACE, "flowlogpolicy/everything");
    let of = |app| bed.pods(NAMESPACE, app);
    let (servers, foo, other) = (of("hello-web"), of("foo"), of("other"));
    for pods in [&servers, &foo, &other] {
        let nodes: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
        assert_eq!(nodes, ["node1", "node2"], "{pods:?}");
    }
    let calls = calls(&bed, &servers);
    let both = [foo.clone(), other.clone()].concat();
    bed.wait_until_admitted(&both, &calls, true);

    bed.apply_samples(&rest);
    bed.wait(NAMESPACE, &format!("policystatus/{POLICY}"));
    // At once: `Programmed` is True only when every node concerned enforces the policy.
    bed.assert_admitted(&other, &calls, false);
    bed.assert_admitted(&foo, &calls, true);
    bed.wait(NAMESPACE, "dataplaneconfig/zone-a");
    bed.wait(NAMESPACE, "cnp/quarantine");
    assert_tables(&bed);
    let expected = expected_records(&servers, &foo, &other);
    // Denials are written when the time in which they are folded is over.
    let _ = wait_for("the logs to have every record", SOON, || {
        Ok((bed.records(&servers) == expected).then_some(()))
    });
    assert_eq!(bed.records(&servers), expected);
    let diff = bed.run(&["diff", "--filename", &samples_folder()]);
    let text = String::from_utf8_lossy(&diff.stdout);
    assert_eq!((diff.status.code(), text.as_ref()), (Some(0), ""));

    bed.label(&other[0], "app=foo");
    bed.wait_until_admitted(&other[..1], &calls, true);
    bed.assert_admitted(&other[1..], &calls, false);
    bed.label(&other[0], "app=other");
    bed.wait_until_admitted(&other[..1], &calls, false);
    bed.label(&foo[0], "quarantine=yes");
    // By address: what reaches nothing reaches no DNS server either, which curl says in another way.
    let by_address: Vec<Call> = calls
        .into_iter()
        .filter(|call| !call.url.contains("hello-web/"))
        .collect();
    bed.wait_until_admitted(&foo[..1], &by_address, false);
    bed.assert_admitted(&foo[1..], &by_address, true);
    bed.label(&foo[0], "quarantine-");
    bed.wait_until_admitted(&foo[..1], &by_address, true);
}
