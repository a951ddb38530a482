//! What a replica answers over HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_operator::health::{Health, Phase, serve};
use weir_operator::metrics::Metrics;

use crate::world::{Running, World, free_address};

/// The status line and the body.
async fn ask(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn ok(body: &str) -> (String, String) {
    ("HTTP/1.0 200 OK".to_owned(), body.to_owned())
}

pub(crate) async fn a_leader_answers_over_http(world: &World, leader: &Running) {
    assert_eq!(ask(leader.address, "/healthz").await, ok("ok\n"));
    assert_eq!(ask(leader.address, "/readyz").await, ok("leading\n"));
    let (status, metrics) = ask(leader.address, "/metrics").await;
    assert_eq!(status, "HTTP/1.0 200 OK");
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<f64>().unwrap()
    };
    assert_eq!(
        (value("weir_operator_leading "), value("weir_operator_nodes ")),
        (1.0, 2.0)
    );
    let written = value(r#"weir_operator_api_writes_total{kind="NodeDataplane",result="done"} "#);
    assert!(written >= 2.0, "{written}");
    assert_eq!(
        ask(leader.address, "/elsewhere").await.0,
        "HTTP/1.0 404 Not Found"
    );

    // Another one waits its turn, and is ready all the same.
    let other = world.start_standby("other");
    until_it_listens(world, other.address).await;
    world
        .until("it stands by", async || {
            (ask(other.address, "/readyz").await == ok("standing by\n")).then_some(())
        })
        .await;
    let metrics = ask(other.address, "/metrics").await.1;
    assert!(
        metrics.lines().any(|line| line == "weir_operator_leading 0"),
        "{metrics}"
    );
    other.stop().await;
}

/// A replica lives before it is ready: whoever restarts it must not look at the same as whoever sends it work.
pub(crate) async fn not_ready_is_not_dead(world: &World) {
    let (health, address) = (Health::default(), free_address());
    let serving = tokio::spawn(serve(address, health.clone(), Metrics::new().unwrap()));
    until_it_listens(world, address).await;
    for (phase, expected) in [
        (Phase::Starting, "the API server has not answered yet\n"),
        (Phase::Syncing, "not every kind has been listed yet\n"),
    ] {
        health.set(phase);
        let unavailable = ("HTTP/1.0 503 Service Unavailable".to_owned(), expected.to_owned());
        assert_eq!(ask(address, "/readyz").await, unavailable);
        assert_eq!(ask(address, "/healthz").await, ok("ok\n"));
    }
    serving.abort();
}

async fn until_it_listens(world: &World, address: SocketAddr) {
    world
        .until("it listens", async || TcpStream::connect(address).await.ok())
        .await;
}
