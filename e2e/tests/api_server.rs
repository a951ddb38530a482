//! An API server alone. Building one takes minutes the first time.

use std::path::Path;
use std::process::Command;

use weir_e2e::api_server::ApiServer;

fn answer(command: &mut Command) -> String {
    let output = command.output().expect("kubectl starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn kubectl(server: &ApiServer, arguments: &[&str]) -> String {
    answer(server.kubectl().expect("a cache").args(arguments))
}

/// Processes that were started with a path below the folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let folder = folder.display().to_string();
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

#[test]
fn serves_keeps_what_is_stored_and_leaves_nothing() {
    let mut server = ApiServer::start().expect("an API server");
    let folder = server
        .kubeconfig()
        .ancestors()
        .nth(2)
        .expect("a folder")
        .to_owned();
    assert_eq!(processes_of(&folder).len(), 2);

    // Pods need no service account, and a second server is another world.
    kubectl(&server, &["run", "p", "--image=example.org/p:1"]);
    let other = ApiServer::start().expect("another API server");
    assert_eq!(kubectl(&other, &["get", "pods", "--output=name"]), "");
    drop(other);

    server.stop().expect("stopped");
    let refused = server.kubectl().expect("a cache").args(["get", "pods"]).output();
    assert!(!refused.expect("kubectl starts").status.success());
    server.resume().expect("resumed");
    assert_eq!(kubectl(&server, &["get", "pods", "--output=name"]), "pod/p\n");

    drop(server);
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert!(!folder.exists());
}

#[test]
fn outlives_the_thread_that_started_it() {
    let start = std::thread::spawn(|| ApiServer::start().expect("an API server"));
    let server = start.join().expect("started");
    assert_eq!(kubectl(&server, &["get", "--raw", "/readyz"]), "ok");
}
