use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tempfile::TempDir;
use weir_cni::protocol::Pod;

use super::*;
use crate::metrics::Build;

const SOON: Duration = Duration::from_secs(20);

fn bed() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("run/cni.sock");
    (dir, socket)
}

fn metrics() -> Arc<Metrics> {
    let build = Build {
        version: "0.1.0",
        abi_version: 1,
    };
    Arc::new(Metrics::new(build).expect("metrics"))
}

fn request_line(verb: Verb) -> Vec<u8> {
    protocol::line(&protocol::Request::new(verb)).expect("a line")
}

fn del(container_id: &str) -> Verb {
    Verb::Del {
        container_id: container_id.into(),
        ifname: "eth0".into(),
    }
}

async fn next(requests: &mut mpsc::Receiver<Request>) -> Request {
    timeout(SOON, requests.recv())
        .await
        .expect("in time")
        .expect("a request")
}

/// Sends bytes and reads all that comes.
async fn exchange(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    // A server that has seen enough stops reading.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("read");
    String::from_utf8(answer).expect("UTF-8")
}

#[tokio::test]
async fn hands_every_verb_to_the_loop() {
    let (_dir, socket) = bed();
    let metrics = metrics();
    let mut requests = serve(&socket, Arc::clone(&metrics)).expect("served");
    assert_eq!(fs::metadata(&socket).expect("there").mode() & 0o777, 0o600);
    let id = AttachmentId {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    };
    let cases = [
        (
            Verb::Add {
                container_id: "c1".into(),
                netns: "/run/netns/n".into(),
                ifname: "eth0".into(),
                pod: Pod {
                    namespace: "shop".into(),
                    name: "web-0".into(),
                    uid: "8c7a".into(),
                },
            },
            RequestKind::Add {
                container_id: "c1".into(),
                netns: "/run/netns/n".into(),
                ifname: "eth0".into(),
                pod: PodId {
                    namespace: "shop".into(),
                    name: "web-0".into(),
                },
                pod_uid: "8c7a".into(),
            },
        ),
        (
            del("c1"),
            RequestKind::Del {
                container_id: "c1".into(),
                ifname: "eth0".into(),
            },
        ),
        (
            Verb::Check {
                container_id: "c1".into(),
                netns: "/run/netns/n".into(),
                ifname: "eth0".into(),
            },
            RequestKind::Check {
                container_id: "c1".into(),
                netns: "/run/netns/n".into(),
                ifname: "eth0".into(),
            },
        ),
        (
            Verb::Gc {
                valid: BTreeSet::from([id.clone()]),
            },
            RequestKind::Gc {
                valid: BTreeSet::from([id]),
            },
        ),
        (Verb::Status, RequestKind::Status),
    ];
    for (verb, expected) in cases {
        let line = request_line(verb);
        let (answer, ()) = tokio::join!(exchange(&socket, &line), async {
            let request = next(&mut requests).await;
            assert_eq!(request.kind, expected);
            request.reply.send(Ok(Reply::Done)).expect("somebody waits");
        });
        assert_eq!(answer, "\"done\"\n");
    }
    let text = metrics.render().expect("text");
    let counts: Vec<&str> = text.lines().filter(|line| line.contains("_count{")).collect();
    let expected = ["add", "check", "del", "gc", "status"].map(|verb| {
        format!(r#"weir_cni_request_duration_seconds_count{{result="success",verb="{verb}"}} 1"#)
    });
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn hands_errors_to_the_plugin() {
    let (_dir, socket) = bed();
    let mut requests = serve(&socket, metrics()).expect("served");
    let line = request_line(Verb::Status);
    let (answer, ()) = tokio::join!(exchange(&socket, &line), async {
        let error = CniError::new(code::NOT_AVAILABLE, "no podCIDR");
        let request = next(&mut requests).await;
        request.reply.send(Err(error)).expect("somebody waits");
    });
    assert_eq!(answer, "{\"failed\":{\"code\":50,\"msg\":\"no podCIDR\"}}\n");

    let (answer, ()) = tokio::join!(exchange(&socket, &line), async {
        drop(next(&mut requests).await);
    });
    assert_eq!(
        answer,
        "{\"failed\":{\"code\":11,\"msg\":\"the node agent is stopping\"}}\n"
    );
}

#[tokio::test]
async fn refuses_what_is_no_request() {
    let (_dir, socket) = bed();
    let mut requests = serve(&socket, metrics()).expect("served");
    let long = vec![b'x'; MAX_REQUEST as usize + 10];
    let cases: [(&[u8], &str); 4] = [
        (
            b"GET / HTTP/1.1\n",
            r#"{"failed":{"code":6,"msg":"the agent does not understand the plugin's request","details":"expected value at line 1 column 1"}}"#,
        ),
        (
            b"{\"version\":7}\n",
            r#"{"failed":{"code":1,"msg":"the plugin speaks version 7 of the agent's protocol, and the agent 1"}}"#,
        ),
        (
            b"{\"version\":1,\"verb\":{\"DEL\":{\"containerId\":\"../x\",\"ifname\":\"eth0\"}}}\n",
            r#"{"failed":{"code":4,"msg":"container id \"../x\" is not a letter or digit followed by letters, digits, '_', '.' and '-'"}}"#,
        ),
        (
            &long,
            r#"{"failed":{"code":6,"msg":"the plugin's request has more than 1048576 bytes"}}"#,
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(exchange(&socket, bytes).await, format!("{expected}\n"));
    }
    // The server goes on, and none of it has reached the loop.
    let line = request_line(del("last"));
    let (answer, ()) = tokio::join!(exchange(&socket, &line), async {
        let request = next(&mut requests).await;
        let expected = RequestKind::Del {
            container_id: "last".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(request.kind, expected);
        request.reply.send(Ok(Reply::Done)).expect("somebody waits");
    });
    assert_eq!(answer, "\"done\"\n");
}

#[tokio::test]
async fn tells_the_loop_that_nobody_waits_any_more() {
    let (_dir, socket) = bed();
    let mut requests = serve(&socket, metrics()).expect("served");
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    stream.write_all(&request_line(Verb::Status)).await.expect("sent");
    let mut request = next(&mut requests).await;
    assert!(!request.reply.is_closed());
    drop(stream);
    timeout(SOON, request.reply.closed()).await.expect("in time");
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_forgotten() {
    let (_dir, socket) = bed();
    let mut requests = serve(&socket, metrics()).expect("served");
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    let line = request_line(del("half"));
    stream.write_all(&line[..line.len() - 1]).await.expect("sent");
    drop(stream);
    let line = request_line(del("whole"));
    let (_, ()) = tokio::join!(exchange(&socket, &line), async {
        let request = next(&mut requests).await;
        let expected = RequestKind::Del {
            container_id: "whole".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(request.kind, expected);
        drop(request);
    });
}

#[tokio::test]
async fn a_socket_that_was_left_is_replaced_and_another_file_is_not() {
    let (_dir, socket) = bed();
    drop(serve(&socket, metrics()).expect("served"));
    // What a crash between two steps leaves.
    let unfinished = socket.with_file_name("cni.sock~");
    drop(std::os::unix::net::UnixListener::bind(&unfinished).expect("bound"));
    let mut requests = serve(&socket, metrics()).expect("served again");
    assert!(!unfinished.exists());
    let line = request_line(Verb::Status);
    let (answer, ()) = tokio::join!(exchange(&socket, &line), async {
        let request = next(&mut requests).await;
        request.reply.send(Ok(Reply::Done)).expect("somebody waits");
    });
    assert_eq!(answer, "\"done\"\n");

    let other = socket.with_file_name("other");
    fs::write(&other, "precious").expect("written");
    let error = serve(&other, metrics()).expect_err("occupied");
    assert_eq!(
        error.to_string(),
        format!("{}: there is a file that is no socket", other.display())
    );
    assert_eq!(fs::read_to_string(&other).expect("read"), "precious");
}

#[tokio::test]
async fn replays_the_notes_until_they_succeed() {
    let (_dir, socket) = bed();
    let notes = deletions::directory(&socket);
    fs::create_dir_all(&notes).expect("created");
    let note = |container_id: &str| AttachmentId {
        container_id: container_id.into(),
        ifname: "eth0".into(),
    };
    deletions::leave(&notes, &note("a")).expect("left");
    deletions::leave(&notes, &note("b")).expect("left");
    let mut requests = serve_every(&socket, metrics(), Duration::from_millis(20)).expect("served");
    let steps = [
        ("a", Ok(Reply::Done)),
        ("b", Err(CniError::io_failure("busy"))),
        ("b", Ok(Reply::Done)),
    ];
    for (container_id, reply) in steps {
        let request = next(&mut requests).await;
        let expected = RequestKind::Del {
            container_id: container_id.into(),
            ifname: "eth0".into(),
        };
        assert_eq!(request.kind, expected);
        request.reply.send(reply).expect("somebody waits");
    }
    // A note that is left while the agent runs is found too, and those that are done are gone.
    deletions::leave(&notes, &note("c")).expect("left");
    let request = next(&mut requests).await;
    let expected = RequestKind::Del {
        container_id: "c".into(),
        ifname: "eth0".into(),
    };
    assert_eq!(request.kind, expected);
    assert_eq!(deletions::read(&notes).expect("read"), [note("c")]);
}

#[tokio::test]
async fn many_ask_at_once() {
    let (_dir, socket) = bed();
    let mut requests = serve(&socket, metrics()).expect("served");
    let asking: Vec<_> = (0..300)
        .map(|number| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let line = request_line(del(&format!("c{number}")));
                exchange(&socket, &line).await
            })
        })
        .collect();
    let mut waiting = Vec::new();
    for _ in 0..300 {
        waiting.push(next(&mut requests).await);
    }
    for request in waiting.into_iter().rev() {
        request.reply.send(Ok(Reply::Done)).expect("somebody waits");
    }
    for one in asking {
        assert_eq!(one.await.expect("joined"), "\"done\"\n");
    }
}

#[test]
fn only_root_and_the_agent_itself_may_ask() {
    assert!(may_ask(0, 0));
    assert!(may_ask(0, 1000));
    assert!(may_ask(1000, 1000));
    assert!(!may_ask(1000, 0));
}
