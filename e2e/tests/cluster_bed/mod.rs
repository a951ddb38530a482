//! A cluster with Weir installed, kubectl on it, and ways into its pods.
#![allow(
    dead_code,
    reason = "every test file compiles this one, and none uses all of it"
)]

pub(crate) mod agent;
pub(crate) mod listener;
pub(crate) mod netns;
pub(crate) mod newcomers;
pub(crate) mod pods;
pub(crate) mod times;
pub(crate) mod watch;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use weir_e2e::cluster::Cluster;
use weir_e2e::down::down;
use weir_e2e::install::{Weir, install};
use weir_e2e::kubernetes;
use weir_e2e::plan::{ClusterName, Family, Options};
use weir_e2e::progress::Progress;
use weir_e2e::up::up;

use pods::Pod;

/// Names a running cluster with Weir installed.
const CLUSTER: &str = "WEIR_E2E_CLUSTER";

/// For what the cluster does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
    /// To be ended after the test.
    own: Option<ClusterName>,
}

impl Bed {
    /// On the cluster that [`CLUSTER`] names, or on one of its own, of two nodes and both families.
    pub(crate) fn start(name: &str) -> Self {
        let progress = Progress::start();
        if let Ok(name) = std::env::var(CLUSTER) {
            let name = name.parse().expect("the name of a cluster");
            let cluster = Cluster::existing(&name).expect("a running cluster");
            return Self { cluster, own: None };
        }
        let name: ClusterName = name.parse().expect("a name");
        let options = Options {
            name: name.clone(),
            nodes: 2,
            family: Family::Dual,
        };
        let bed = Self {
            cluster: up(&options, progress).expect("up"),
            own: Some(name),
        };
        let weir = Weir {
            images: checkout().join("target/images"),
            manifests: checkout().join("config/default"),
        };
        install(&bed.cluster, &weir, progress).expect("installed");
        bed
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut kubectl = self.cluster.kubectl().expect("a cache");
        kubectl.args(arguments).output().expect("kubectl starts")
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Applies an object, and says what the API server has made of it.
    #[track_caller]
    pub(crate) fn apply(&self, object: &Value) -> Value {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("object.json");
        std::fs::write(&file, object.to_string()).expect("written");
        let file = file.display().to_string();
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=weir-e2e",
            "--output=json",
            "--filename",
            &file,
        ];
        serde_json::from_str(&self.kubectl(&apply)).expect("JSON")
    }

    /// What `kubectl get` answers; `null` when there is no such object.
    #[track_caller]
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let answer = kubernetes::get(&self.cluster, arguments).expect("an answer");
        answer.unwrap_or_default()
    }

    /// The pods of a namespace with a label `app`, by node and name.
    pub(crate) fn pods(&self, namespace: &str, app: &str) -> Vec<Pod> {
        let selector = format!("--selector=app={app}");
        let namespace = format!("--namespace={namespace}");
        let list = self.get(&["pods", &namespace, &selector]);
        let items = list["items"].as_array().expect("items");
        let mut pods: Vec<Pod> = items.iter().map(Pod::of).collect();
        pods.sort();
        pods
    }

    /// Deletes objects, such as a namespace, and waits until they are gone.
    #[track_caller]
    pub(crate) fn delete(&self, arguments: &[&str]) {
        self.kubectl(&[&["delete", "--ignore-not-found"], arguments].concat());
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.own.as_ref().map(|name| down(name, Progress::start())) {
            eprintln!("{error:#}");
        }
    }
}

pub(crate) fn checkout() -> PathBuf {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().expect("a workspace").to_owned()
}
