//! The binary as a runtime runs it, against an agent's own server and store, without a kernel behind them.

mod agent;
mod runtime;

use std::collections::BTreeSet;
use std::fs;

use agent::Agent;
use runtime::{Answer, Call};
use serde_json::{Value, json};
use weir_cni::CniError;
use weir_cni::deletions;
use weir_cni::error::code;
use weir_cni::protocol::AttachmentId;

/// Two runs of a node's agent and what stays between them.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("netns"), "").expect("written");
        Bed { dir }
    }

    fn start(&self) -> Agent {
        Agent::start(self.dir.path(), &["10.0.3.0/29", "fd00:3::/64"])
    }

    fn call(&self, command: &str, version: &str) -> Call {
        Call::new(command, version, self.dir.path())
    }

    fn notes(&self) -> Vec<AttachmentId> {
        deletions::read(&deletions::directory(&agent::socket(self.dir.path()))).expect("read")
    }

    /// What `ADD` says of container `c1`, with its node end's name, in version 1.1.0.
    fn result(&self, v4: &str, v6: &str) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "weirfd61c7d1f13", "mac": "02:57:45:49:52:01", "mtu": 1450 },
                { "name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": self.netns() },
            ],
            "ips": [
                { "interface": 1, "address": v4, "gateway": "169.254.1.1" },
                { "interface": 1, "address": v6, "gateway": "fe80::1" },
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "gw": "169.254.1.1" },
                { "dst": "::/0", "gw": "fe80::1" },
            ],
            "dns": {},
        })
    }

    fn netns(&self) -> String {
        self.dir.path().join("netns").display().to_string()
    }
}

fn id(container_id: &str) -> AttachmentId {
    AttachmentId {
        container_id: container_id.into(),
        ifname: "eth0".into(),
    }
}

fn failed(version: &str, code: u32, msg: &str) -> Answer {
    Answer::failed(json!({ "cniVersion": version, "code": code, "msg": msg }))
}

#[test]
fn a_pods_life() {
    let bed = Bed::new();
    let agent = bed.start();
    let result = bed.result("10.0.3.2/32", "fd00:3::2/128");
    assert_eq!(bed.call("STATUS", "1.1.0").run(), Answer::silent());
    assert_eq!(bed.call("ADD", "1.1.0").run(), Answer::said(result.clone()));
    assert_eq!(agent.attached(), BTreeSet::from([id("c1")]));
    // A runtime may ask again where it did not hear the answer.
    assert_eq!(bed.call("ADD", "1.1.0").run(), Answer::said(result.clone()));
    let check = bed.call("CHECK", "1.1.0").config("prevResult", result);
    assert_eq!(check.run(), Answer::silent());
    for _ in 0..2 {
        let del = bed.call("DEL", "1.1.0").variable("CNI_NETNS", "");
        assert_eq!(del.run(), Answer::silent());
    }
    assert_eq!(agent.attached(), BTreeSet::new());
    assert_eq!(
        check.run(),
        failed("1.1.0", code::UNKNOWN_CONTAINER, "c1 eth0 was never added")
    );
}

#[test]
fn every_version_has_its_form() {
    let bed = Bed::new();
    let _agent = bed.start();
    let mut latest = bed.result("10.0.3.2/32", "fd00:3::2/128");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let Answer::Success {
            stdout: Some(result), ..
        } = bed.call("ADD", version).run()
        else {
            panic!("ADD of {version} fails");
        };
        latest["cniVersion"] = json!(version);
        assert_eq!(result["cniVersion"], latest["cniVersion"]);
        let is_old = version.starts_with('0');
        assert_eq!(result["ips"][1].get("version"), is_old.then_some(&json!("6")));
        assert_eq!(
            result["interfaces"][1].get("mtu"),
            (version == "1.1.0").then_some(&json!(1450))
        );
        let check = bed.call("CHECK", version).config("prevResult", result).run();
        let expected = match version {
            "0.3.1" => failed(
                version,
                code::INCOMPATIBLE_VERSION,
                "cniVersion: 0.3.1 has no CHECK, which came with 0.4.0",
            ),
            _ => Answer::silent(),
        };
        assert_eq!(check, expected);
        assert_eq!(bed.call("DEL", version).run(), Answer::silent());
    }
    for verb in ["STATUS", "GC"] {
        let msg = format!("cniVersion: 1.0.0 has no {verb}, which came with 1.1.0");
        assert_eq!(
            bed.call(verb, "1.0.0").run(),
            failed("1.0.0", code::INCOMPATIBLE_VERSION, &msg)
        );
    }
}

#[test]
fn tells_its_versions_to_whoever_asks() {
    let bed = Bed::new();
    let versions = |stated: &str| {
        Answer::said(json!({
            "cniVersion": stated,
            "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        }))
    };
    assert_eq!(bed.call("VERSION", "1.0.0").run(), versions("1.0.0"));
    assert_eq!(bed.call("VERSION", "9.9.9").run(), versions("9.9.9"));
    assert_eq!(bed.call("VERSION", "").stdin("").run(), versions("1.1.0"));
}

#[test]
fn a_restarted_agent_knows_what_it_gave() {
    let bed = Bed::new();
    let agent = bed.start();
    let result = bed.result("10.0.3.2/32", "fd00:3::2/128");
    assert_eq!(bed.call("ADD", "1.1.0").run(), Answer::said(result.clone()));
    agent.stop();

    let agent = bed.start();
    let check = bed.call("CHECK", "1.1.0").config("prevResult", result.clone());
    assert_eq!(check.run(), Answer::silent());
    assert_eq!(bed.call("ADD", "1.1.0").run(), Answer::said(result));
    let second = bed.call("ADD", "1.1.0").container("c2").run();
    assert_eq!(second.addresses(), ["10.0.3.3/32", "fd00:3::3/128"]);
    assert_eq!(agent.attached(), BTreeSet::from([id("c1"), id("c2")]));
}

#[test]
fn what_is_deleted_while_the_agent_is_away_is_deleted_when_it_is_back() {
    let bed = Bed::new();
    let agent = bed.start();
    for container in ["c1", "c2"] {
        let added = bed.call("ADD", "1.1.0").container(container).run();
        assert_eq!(added.addresses().len(), 2);
    }
    agent.stop();

    let away = "the node agent is away: SOCKET: Connection refused (os error 111)";
    let add = bed.call("ADD", "1.1.0").container("c3").run();
    assert_eq!(add, failed("1.1.0", code::TRY_AGAIN_LATER, away));
    assert_eq!(
        bed.call("STATUS", "1.1.0").run(),
        failed("1.1.0", code::NOT_AVAILABLE, away)
    );
    let gc = bed
        .call("GC", "1.1.0")
        .config("cni.dev/valid-attachments", json!([]));
    assert_eq!(gc.run(), failed("1.1.0", code::TRY_AGAIN_LATER, away));
    for _ in 0..2 {
        let Answer::Success { stdout: None, stderr } = bed.call("DEL", "1.1.0").run() else {
            panic!("DEL fails");
        };
        assert_eq!(
            stderr,
            format!("{away}; it will find a note in DIR/run/deletions\n")
        );
    }
    assert_eq!(bed.notes(), [id("c1")]);

    let agent = bed.start();
    agent.until(|attached| attached == &BTreeSet::from([id("c2")]));
    // The address of c1 comes last, and c3 has one that was never given.
    let third = bed.call("ADD", "1.1.0").container("c3").run();
    assert_eq!(third.addresses(), ["10.0.3.4/32", "fd00:3::4/128"]);
    agent.stop();
    assert_eq!(bed.notes(), []);
}

#[test]
fn where_no_agent_ever_was_there_is_nothing_to_delete() {
    let bed = Bed::new();
    let Answer::Success { stdout: None, .. } = bed.call("DEL", "1.0.0").run() else {
        panic!("DEL fails");
    };
    assert_eq!(bed.notes(), []);
}

#[test]
fn garbage_is_what_the_runtime_does_not_name() {
    let bed = Bed::new();
    let agent = bed.start();
    for container in ["c1", "c2", "c3"] {
        bed.call("ADD", "1.1.0").container(container).run();
    }
    let gc = |valid: Value| bed.call("GC", "1.1.0").config("cni.dev/valid-attachments", valid);
    let valid = json!([{ "containerID": "c2", "ifname": "eth0" }, { "containerID": "c3", "ifname": "eth1" }]);
    assert_eq!(gc(valid).run(), Answer::silent());
    assert_eq!(agent.attached(), BTreeSet::from([id("c2")]));
    // To say nothing is not to say that there is none.
    assert_eq!(
        bed.call("GC", "1.1.0").run(),
        failed(
            "1.1.0",
            code::INVALID_CONFIG,
            "cni.dev/valid-attachments: missing, and GC would remove every attachment without it"
        )
    );
    let other = gc(json!([])).config("name", json!("other"));
    assert_eq!(
        other.run(),
        failed(
            "1.1.0",
            code::INVALID_CONFIG,
            "name: \"other\" is not \"weir\", the only network that weir-cni collects the garbage of"
        )
    );
    assert_eq!(agent.attached(), BTreeSet::from([id("c2")]));
    assert_eq!(gc(Value::Null).run(), Answer::silent());
    assert_eq!(agent.attached(), BTreeSet::new());
}

#[test]
fn an_agent_that_refuses_is_heard() {
    let bed = Bed::new();
    let agent = bed.start();
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        bed.call("ADD", "1.1.0").container(container).run();
    }
    let sixth = bed.call("ADD", "1.1.0").container("c6").run();
    assert_eq!(
        sixth,
        failed(
            "1.1.0",
            code::TRY_AGAIN_LATER,
            "every address of the node's podCIDRs 10.0.3.0/29 is taken"
        )
    );
    agent.refuse(CniError::new(code::LIMITED_CONNECTIVITY, "no programs").with_details("kernel 3.2"));
    let expected =
        json!({ "cniVersion": "1.1.0", "code": 51, "msg": "no programs", "details": "kernel 3.2" });
    // An agent that is there and cannot delete is asked again; there is no note then.
    for verb in ["STATUS", "DEL"] {
        assert_eq!(bed.call(verb, "1.1.0").run(), Answer::failed(expected.clone()));
    }
    assert_eq!(bed.notes(), []);
}

#[test]
fn many_at_once() {
    let bed = Bed::new();
    let agent = Agent::start(bed.dir.path(), &["10.0.0.0/24"]);
    let containers: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let addresses: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = containers
            .iter()
            .map(|container| scope.spawn(|| bed.call("ADD", "1.0.0").container(container).run().addresses()))
            .collect();
        calls
            .into_iter()
            .flat_map(|call| call.join().expect("joined"))
            .collect()
    });
    assert_eq!(addresses.len(), 40);
    assert_eq!(agent.attached(), containers.iter().map(|name| id(name)).collect());
}

#[test]
fn what_is_wrong_is_named_before_the_agent_is_asked() {
    let bed = Bed::new();
    let netns = bed.netns();
    let own = "/proc/self/ns/net";
    let cases = [
        (
            bed.call("ADD", "1.0.0").variable("CNI_CONTAINERID", ""),
            // Nothing was read of the configuration yet.
            failed("1.1.0", 4, "not set: CNI_CONTAINERID"),
        ),
        (
            bed.call("ADD", "1.0.0").variable("CNI_ARGS", "IgnoreUnknown=1"),
            failed("1.1.0", 4, "CNI_ARGS: K8S_POD_NAMESPACE is missing"),
        ),
        (
            bed.call("LIST", "1.0.0"),
            failed(
                "1.1.0",
                4,
                "CNI_COMMAND: \"LIST\" is none of ADD, DEL, CHECK, GC, STATUS and VERSION",
            ),
        ),
        (
            bed.call("ADD", "1.0.0").stdin("{"),
            Answer::failed(json!({
                "cniVersion": "1.1.0",
                "code": 6,
                "msg": "the configuration on standard input is not a JSON object",
                "details": "EOF while parsing an object at line 1 column 1",
            })),
        ),
        (
            bed.call("ADD", "0.2.0"),
            failed(
                "0.2.0",
                1,
                "cniVersion: \"0.2.0\" is none of 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
        ),
        (
            bed.call("ADD", "1.0.0").config("socket", json!("cni.sock")),
            failed("1.0.0", 7, "socket: \"cni.sock\" is not an absolute path"),
        ),
        (
            bed.call("ADD", "1.0.0").config("soket", json!("/x")),
            failed("1.0.0", 2, "soket: \"/x\": the plugin has no such key"),
        ),
        (
            bed.call("ADD", "1.0.0").config("prevResult", json!({})),
            failed(
                "1.0.0",
                7,
                "prevResult: weir-cni makes the pod's interface, so it is the first plugin of its list",
            ),
        ),
        (
            bed.call("CHECK", "1.0.0"),
            failed("1.0.0", 7, "prevResult: missing, and CHECK needs it"),
        ),
        (
            bed.call("ADD", "1.0.0").variable("CNI_NETNS", own),
            failed(
                "1.0.0",
                8,
                "CNI_NETNS: /proc/self/ns/net is the node's own namespace",
            ),
        ),
        (
            bed.call("ADD", "1.0.0")
                .variable("CNI_NETNS", &format!("{netns}-absent")),
            failed(
                "1.0.0",
                4,
                "CNI_NETNS: DIR/netns-absent: No such file or directory (os error 2)",
            ),
        ),
    ];
    for (call, expected) in cases {
        assert_eq!(call.run(), expected, "{call:?}");
    }
}

#[test]
fn a_plugin_that_is_run_by_hand_says_so_at_once() {
    let bed = Bed::new();
    let call = bed.call("", "1.0.0");
    assert_eq!(call.run(), failed("1.1.0", 4, "not set: CNI_COMMAND"));
}
