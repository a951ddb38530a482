//! The agent against a real API server, with the test in the operator's place: slices, a NodeDataplane, pods, the CNI
//! plugin's requests, and traffic.

mod bed;
mod operator;

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_cni::protocol::Answer;

use bed::Bed;
use operator::{Operator, policy};

/// Time in which a pod would have started if it could.
const A_WHILE: Duration = Duration::from_millis(1500);

#[test]
fn pods_start_under_their_policy_and_the_spec_is_acknowledged() -> Result<()> {
    let bed = Bed::new("cluster-start")?;
    let mut operator = Operator::new();
    operator.identity("client", 1);
    operator.identity("server", 2);
    operator.identity("other", 3);
    operator.policies = vec![policy("in", "server", "client")?];
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;

    // The kernel holds the spec before there is a pod.
    let status = bed.programmed(1)?;
    ensure!(
        status["policies"] == json!(1) && status["pods"] == json!(0),
        "{status}"
    );
    bed.until("our taint is gone, and no other", || {
        let taints = bed.taints()?;
        let keys: Vec<&Value> = taints
            .as_array()
            .into_iter()
            .flatten()
            .map(|taint| &taint["key"])
            .collect();
        Ok(keys.contains(&&json!("other")) && !keys.contains(&&json!("dataplane.weir.dev/not-ready")))
    })?;

    let [client, server, other] = ["client", "server", "other"].map(|name| bed.pod(name, name));
    let (client, server, other) = (client?, server?, other?);
    ensure!(client.addresses()?.len() == 2, "an address of each family");
    bed.expect(&[
        (&client, &server, true),
        (&other, &server, false),
        (&other, &client, true),
    ])?;
    // Doing it again changes nothing.
    ensure!(bed.add(&client)? == client.answer, "ADD twice");
    ensure!(bed.check(&client)? == client.answer, "CHECK");
    bed.until("three pods", || Ok(bed.status()?["pods"] == json!(3)))?;
    let lease = bed.get("lease", "weir-agent-n1", Some("weir-system"))?;
    ensure!(
        lease["spec"]["leaseDurationSeconds"] == json!(40) && lease["spec"]["holderIdentity"] == json!("n1"),
        "{lease}"
    );

    // A spec waits for its address book; until then the old one holds.
    operator.revision = 7;
    operator.policies.clear();
    operator.write_spec(&bed)?;
    bed.until("the spec waits", || {
        let condition = bed.condition("Programmed")?;
        Ok(condition["reason"] == json!("WaitingForAddressBook") && condition["status"] == json!("False"))
    })?;
    ensure!(bed.status()?["programmedGeneration"] == json!(1));
    bed.expect(&[(&other, &server, false)])?;
    operator.write_book(&bed)?;
    bed.programmed(2)?;
    bed.expect(&[(&client, &server, true), (&other, &server, true)])?;

    bed.delete(&other)?;
    ensure!(bed.check(&other).is_err(), "CHECK after DEL");
    bed.delete(&other)?;
    bed.until("two pods", || Ok(bed.status()?["pods"] == json!(2)))?;
    bed.end()
}

#[test]
fn a_pod_waits_until_its_identity_is_covered() -> Result<()> {
    let bed = Bed::new("cluster-wait")?;
    let mut operator = Operator::new();
    operator.identity("server", 2);
    operator.policies = vec![policy("in", "server", "client")?];
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;
    let server = bed.pod("server", "server")?;

    let place = bed.pod_object("client", "client")?;
    let late = thread::scope(|scope| -> Result<_> {
        let attaching = scope.spawn(|| bed.attach("client", &place));
        thread::sleep(A_WHILE);
        ensure!(!attaching.is_finished(), "nobody knows what holds for the pod");
        operator.identity("client", 1);
        operator.revision += 1;
        operator.write_book(&bed)?;
        thread::sleep(A_WHILE);
        ensure!(
            !attaching.is_finished(),
            "the NodeDataplane does not cover the identity"
        );
        operator.write_spec(&bed)?;
        attaching.join().expect("no panic")
    })?;
    bed.expect(&[(&late, &server, true)])?;

    // Nobody gives a number to this one: it starts closed when the time is over.
    operator.settings = json!({"policy": {"podStartTimeoutSeconds": 2}});
    operator.write_spec(&bed)?;
    bed.programmed(3)?;
    let closed = bed.pod("closed", "nobody")?;
    bed.expect(&[
        (&closed, &server, false),
        (&closed, &late, false),
        (&late, &closed, false),
    ])?;
    operator.settings = json!({"policy": {"podStartTimeoutSeconds": 1, "onPodStartTimeout": "Fail"}});
    operator.write_spec(&bed)?;
    bed.programmed(4)?;
    let place = bed.pod_object("failed", "nobody")?;
    let failed = bed
        .attach("failed", &place)
        .err()
        .context("it cannot start")?
        .to_string();
    ensure!(
        failed.contains("the operator has given no number to its identity yet"),
        "{failed}"
    );
    // The first becomes somebody, and is let out without a new start.
    operator.identity("nobody", 9);
    operator.revision += 1;
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;
    bed.expect(&[(&closed, &late, true), (&closed, &server, false)])?;
    bed.end()
}

#[test]
fn without_an_api_server_the_kernel_and_known_pods_go_on() -> Result<()> {
    let mut bed = Bed::new("cluster-alone")?;
    let mut operator = Operator::new();
    operator.identity("client", 1);
    operator.identity("server", 2);
    operator.identity("other", 3);
    operator.policies = vec![policy("in", "server", "client")?];
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;
    let [client, server] = ["client", "server"].map(|name| bed.pod(name, name));
    let (client, server) = (client?, server?);
    let place = bed.pod_object("other", "other")?;
    // The watch has told of it when it has told of what came after.
    operator.settings = json!({"observability": {"logLevel": "Debug"}});
    operator.write_spec(&bed)?;
    bed.programmed(2)?;

    bed.stop_api_server()?;
    let other = bed.attach("other", &place)?;
    bed.expect(&[
        (&client, &server, true),
        (&other, &server, false),
        (&other, &client, true),
    ])?;
    bed.delete(&other)?;

    // An agent that starts now has nothing to put into the kernel, and leaves what is there.
    bed.restart_agent()?;
    thread::sleep(A_WHILE);
    bed.expect(&[(&client, &server, true)])?;

    bed.resume_api_server()?;
    operator.policies.clear();
    operator.write_spec(&bed)?;
    bed.programmed(3)?;
    let other = bed.attach("other", &place)?;
    bed.expect(&[(&client, &server, true), (&other, &server, true)])?;
    bed.end()
}

#[test]
fn what_is_not_understood_closes_its_pods_and_is_told() -> Result<()> {
    let bed = Bed::new("cluster-newer")?;
    let mut operator = Operator::new();
    operator.identity("client", 1);
    operator.identity("server", 2);
    let mut newer = policy("in", "server", "client")?;
    newer["ingress"]["onlyOnSundays"] = json!(true);
    operator.policies = vec![newer];
    operator.settings = json!({"policy": {"establishedConnections": "Keep"}, "services": {"socketLoadBalancing": "Disabled"}});
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;
    bed.programmed(1)?;
    let client = bed.pod("client", "client")?;
    let server = bed.place("server")?;
    // It waits its time for a spec that this agent understands.
    operator.settings["policy"]["podStartTimeoutSeconds"] = json!(1);
    operator.write_spec(&bed)?;
    bed.programmed(2)?;
    let place = bed.pod_object_in(server, "server")?;
    let server = bed.attach("server", &place)?;
    bed.expect(&[(&client, &server, false), (&server, &client, false)])?;
    bed.until("what is refused is told", || {
        let status = bed.status()?;
        let fields: Vec<&Value> = status["refused"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|refused| &refused["field"])
            .collect();
        Ok(fields == [&json!("spec.policy.establishedConnections")])
    })?;
    bed.until("what is not understood is told", || {
        let degraded = bed.condition("Degraded")?;
        let message = degraded["message"].as_str().unwrap_or_default();
        Ok(degraded["status"] == json!("True")
            && message.contains(
                "NetworkPolicy default/in: this agent does not know the field ingress.onlyOnSundays",
            )
            && message.contains("1 pod closed: default/server"))
    })?;
    bed.end()
}

#[test]
fn settings_take_hold_while_pods_run() -> Result<()> {
    let bed = Bed::new("cluster-settings")?;
    let mut operator = Operator::new();
    operator.identity("client", 1);
    operator.identity("server", 2);
    operator.policies = vec![policy("in", "server", "client")?];
    operator.nodes = json!([
        {"name": "n1", "addresses": ["192.168.50.1"], "podCIDRs": ["10.244.1.0/24"]},
        {"name": "n2", "addresses": ["192.168.50.2"], "podCIDRs": ["10.244.2.0/24"]}
    ]);
    operator.write_book(&bed)?;
    operator.write_spec(&bed)?;
    bed.programmed(1)?;
    let [client, server] = ["client", "server"].map(|name| bed.pod(name, name));
    let (client, server) = (client?, server?);
    ensure!(bed.served("/readyz")?.starts_with("HTTP/1.1 200"), "ready");
    ensure!(attached(&client.answer)?.mtu == 1500);
    let route = || bed.ip(&["route", "show", "10.244.2.0/24"]);
    ensure!(route()?.contains("via 192.168.50.2"), "{}", route()?);
    let links =
        |hook: &str| -> Result<usize> { Ok(bed.links()?.iter().filter(|name| name.contains(hook)).count()) };
    let by_socket = links("connect4")?;
    ensure!(by_socket > 0, "{:?}", bed.links()?);

    operator.settings = json!({
        "services": {"socketLoadBalancing": "Disabled"},
        "network": {"mode": "Vxlan"},
        "capacity": {"flows": 2048},
        "observability": {"recordsPerSecond": 7, "logLevel": "Debug"}
    });
    operator.write_spec(&bed)?;
    let status = bed.programmed(2)?;
    ensure!(status.get("refused").is_none(), "{status}");
    ensure!(route()?.contains("dev weir_vxlan"), "{}", route()?);
    ensure!(links("connect4")? == 0, "{:?}", bed.links()?);
    bed.until("the flow tables have another size", || {
        let metrics = bed.served("/metrics")?;
        Ok(metrics
            .lines()
            .any(|line| line == "weir_map_capacity{map=\"flows4\"} 2048"))
    })?;
    let late = bed.pod("late", "client")?;
    ensure!(attached(&late.answer)?.mtu == 1450);
    bed.expect(&[
        (&client, &server, true),
        (&late, &server, true),
        (&server, &client, true),
    ])?;

    operator.settings = json!({"network": {"uplinks": ["none"], "nativeRoutes": "Disabled", "mtu": 1400}});
    operator.write_spec(&bed)?;
    bed.programmed(3)?;
    bed.until("an uplink that is not there is refused", || {
        let refused = bed.status()?["refused"].take();
        let expected =
            json!([{"field": "spec.network.uplinks", "message": "the node has no interface none"}]);
        Ok(refused == expected)
    })?;
    ensure!(route()?.is_empty(), "{}", route()?);
    ensure!(bed.ip(&["link", "show", "weir_vxlan"])?.is_empty());
    ensure!(links("connect4")? == by_socket, "{:?}", bed.links()?);
    bed.expect(&[(&client, &server, true)])?;
    bed.end()
}

/// The API's answer to an `ADD`, for messages.
fn attached(answer: &Answer) -> Result<&weir_cni::protocol::Attached> {
    match answer {
        Answer::Attached(attached) => Ok(attached),
        Answer::Done | Answer::Failed(_) => anyhow::bail!("{answer:?}"),
    }
}
