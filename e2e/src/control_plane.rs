//! The control plane: processes in a network namespace of their own, which is a client outside of all nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::build;
use crate::certificates::Certificates;
use crate::kube_apiserver::{self, EtcdPorts, Settings};
use crate::network::netns_path;
use crate::plan::{API_PORT, Plan};
use crate::process::{self, Recorded};
use crate::recipes::{KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER};

/// In the control plane's namespace, so that clusters share none.
const ETCD: EtcdPorts = EtcdPorts {
    client: 2379,
    peer: 2380,
};

/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program of the control plane, by the name of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
}

impl Program {
    /// In the order in which they are started.
    pub const ALL: [Self; 4] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// The control plane of a cluster, wherever it is in its life.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    plan: &'a Plan,
    /// The cluster's.
    state: &'a Path,
}

impl<'a> ControlPlane<'a> {
    #[must_use]
    pub fn new(plan: &'a Plan, state: &'a Path) -> Self {
        Self { plan, state }
    }

    /// The kubeconfig of an administrator; of use in the control plane's namespace and on nodes.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.certificates().join("admin.kubeconfig")
    }

    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// Makes its certificates, and those of the nodes.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn certify(&self) -> Result<()> {
        let plan = self.plan;
        let mut addresses = plan.control_plane();
        addresses.extend(plan.kubernetes_service());
        addresses.push([127, 0, 0, 1].into());
        let certificates = Certificates::create(&self.certificates(), &plan.api_url(), &addresses)?;
        for name in ["controller-manager", "scheduler"] {
            certificates.client(name, &format!("system:kube-{name}"), None)?;
        }
        for node in &plan.nodes {
            certificates.node(&node.name, &node.addresses)?;
        }
        Ok(())
    }

    /// A program to be run in the control plane's network, to add arguments to.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let netns = netns_path(&self.plan.control_plane_netns());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", netns.display()))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// kubectl as administrator, to add arguments to.
    ///
    /// # Errors
    /// There is no cache.
    pub fn kubectl(&self) -> Result<Command> {
        let words = kube_apiserver::kubectl(&self.kubeconfig())?;
        let mut command = self.command(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    /// Starts a program that does not run.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, program: Program) -> Result<()> {
        if self.process(program).is_some() {
            return Ok(());
        }
        let words = self.words(program)?;
        let mut command = Command::new("setsid");
        let inner = self.command(&words[0]);
        command
            .arg(inner.get_program())
            .args(inner.get_args())
            .args(&words[1..]);
        let child = process::log_to(&mut command, &self.log(program))?
            .spawn()
            .with_context(|| format!("starting {}", program.name()))?;
        // Each of the programs on the way becomes the next one, and keeps the number.
        Recorded::of(child.id())
            .ok_or_else(|| anyhow!("{} ended at once", program.name()))?
            .write(&self.record(program))
    }

    /// Waits until the API server serves.
    ///
    /// # Errors
    /// It does not within two minutes, or has ended.
    pub fn wait_until_ready(&self) -> Result<()> {
        kube_apiserver::wait_until_ready(
            || self.kubectl(),
            || {
                for program in [Program::Etcd, Program::ApiServer] {
                    if self.process(program).is_none() {
                        bail!("{} ended; {}", program.name(), process::tail(&self.log(program)));
                    }
                }
                Ok(())
            },
        )
    }

    /// Ends a program, if it runs. What it has stored stays.
    ///
    /// # Errors
    /// It lives on.
    pub fn stop(&self, program: Program, signal: Signal) -> Result<()> {
        match self.process(program) {
            Some(process) => process.end(signal, PATIENCE),
            None => Ok(()),
        }
    }

    /// A program's process, if it runs.
    #[must_use]
    pub fn process(&self, program: Program) -> Option<Recorded> {
        Recorded::read(&self.record(program)).filter(Recorded::is_alive)
    }

    fn record(&self, program: Program) -> PathBuf {
        self.state.join("pids").join(program.name())
    }

    fn log(&self, program: Program) -> PathBuf {
        self.state.join("logs").join(format!("{}.log", program.name()))
    }

    fn words(&self, program: Program) -> Result<Vec<String>> {
        match program {
            Program::Etcd => kube_apiserver::etcd(&self.state.join("etcd"), ETCD),
            Program::ApiServer => kube_apiserver::kube_apiserver(&Settings {
                certificates: self.certificates(),
                etcd: ETCD,
                port: API_PORT,
                advertised: Some(self.plan.api_address()),
                services: self.plan.service_cidrs().join(","),
                with_controllers: true,
            }),
            Program::ControllerManager => self.controller_manager(),
            Program::Scheduler => self.scheduler(),
        }
    }

    fn controller_manager(&self) -> Result<Vec<String>> {
        let file = |name: &str| self.certificates().join(name).display().to_string();
        let mut words = vec![build::path(&KUBE_CONTROLLER_MANAGER)?.display().to_string()];
        words.extend(as_user(&file("controller-manager.kubeconfig")));
        words.extend([
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={}", self.plan.pod_cidrs().join(",")),
            format!(
                "--service-cluster-ip-range={}",
                self.plan.service_cidrs().join(",")
            ),
            format!("--cluster-signing-cert-file={}", file("ca.crt")),
            format!("--cluster-signing-key-file={}", file("ca.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--service-account-private-key-file={}", file("sa.key")),
            "--use-service-account-credentials=true".to_owned(),
        ]);
        Ok(words)
    }

    fn scheduler(&self) -> Result<Vec<String>> {
        let kubeconfig = self.certificates().join("scheduler.kubeconfig");
        let mut words = vec![build::path(&KUBE_SCHEDULER)?.display().to_string()];
        words.extend(as_user(&kubeconfig.display().to_string()));
        Ok(words)
    }
}

/// There is one of each, so nobody need be elected; it serves its metrics on the loopback interface.
fn as_user(kubeconfig: &str) -> [String; 5] {
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ]
}

/// Ends every program on record in a cluster's state, whatever its plan.
///
/// # Errors
/// One lives on.
pub fn stop_all(state: &Path) -> Result<()> {
    let Ok(records) = fs::read_dir(state.join("pids")) else {
        return Ok(());
    };
    for record in records {
        if let Some(process) = Recorded::read(&record?.path()) {
            process.end(Signal::SIGKILL, PATIENCE)?;
        }
    }
    Ok(())
}
