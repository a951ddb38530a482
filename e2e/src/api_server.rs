//! An API server without nodes, for tests of what talks to the API alone.
//!
//! etcd and kube-apiserver on free ports of the loopback interface; no controllers: namespaces that are deleted stay
//! in `Terminating`, nobody collects what an owner leaves behind, and pods need no service account. Started in about
//! five seconds; ends when dropped, and when the process that started it ends in whatever way.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::build;
use crate::certificates::Certificates;
use crate::kube_apiserver::{self, EtcdPorts, Settings};
use crate::places;
use crate::process::{self, Recorded};
use crate::progress::Progress;
use crate::recipes::Group;

const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";

/// How long a server may take to end when asked to.
const GRACE: Duration = Duration::from_secs(10);

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    kubeconfig: PathBuf,
    kube_apiserver: Server,
    etcd: Server,
    /// Removed when dropped, if it is ours.
    _folder: Option<TempDir>,
}

impl ApiServer {
    /// Builds what is missing, and starts an API server whose files are removed at its end.
    ///
    /// # Errors
    /// Something does not build, or does not become ready within two minutes.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("weir-apiserver-")
            .tempdir()
            .context("making a temporary folder")?;
        let mut this = Self::start_in(folder.path())?;
        this._folder = Some(folder);
        Ok(this)
    }

    /// As [`ApiServer::start`], with its files in a folder that stays. What is stored from an earlier run is kept.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_in(folder: &Path) -> Result<Self> {
        build::ensure(&[Group::ApiServer], Progress::start())?;
        places::create_dir(folder, 0o700)?;
        let [client, peer, port] = free_ports()?;
        let etcd_ports = EtcdPorts { client, peer };
        let certificates = folder.join("pki");
        let url = format!("https://127.0.0.1:{port}");
        Certificates::create(&certificates, &url, &[Ipv4Addr::LOCALHOST.into()])?;
        let settings = Settings {
            certificates: certificates.clone(),
            etcd: etcd_ports,
            port,
            advertised: None,
            services: SERVICES.to_owned(),
            with_controllers: false,
        };
        let etcd = kube_apiserver::etcd(&folder.join("etcd"), etcd_ports)?;
        let kube_apiserver = kube_apiserver::kube_apiserver(&settings)?;
        let mut this = Self {
            kubeconfig: certificates.join("admin.kubeconfig"),
            etcd: Server::start(etcd, &folder.join("etcd.log"))?,
            kube_apiserver: Server::start(kube_apiserver, &folder.join("kube-apiserver.log"))?,
            _folder: None,
        };
        this.wait_until_ready()?;
        Ok(this)
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl as administrator, to add arguments to.
    ///
    /// # Errors
    /// There is no cache.
    pub fn kubectl(&self) -> Result<Command> {
        let words = kube_apiserver::kubectl(&self.kubeconfig)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    /// Ends kube-apiserver; what is stored stays.
    ///
    /// # Errors
    /// It lives on.
    pub fn stop(&mut self) -> Result<()> {
        self.kube_apiserver.stop()
    }

    /// Starts kube-apiserver anew, at the same address.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn resume(&mut self) -> Result<()> {
        self.kube_apiserver.stop()?;
        self.kube_apiserver.resume()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        kube_apiserver::wait_until_ready(
            || self.kubectl(),
            || {
                self.etcd.check_alive()?;
                self.kube_apiserver.check_alive()
            },
        )
    }
}

/// A program that ends with this process, even if nobody can end it any more.
#[derive(Debug)]
struct Server {
    words: Vec<String>,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Recorded,
    /// Its end tells the keeper to reap.
    quit: Sender<()>,
    keeper: JoinHandle<()>,
}

impl Server {
    fn start(words: Vec<String>, log: &Path) -> Result<Self> {
        let mut this = Self {
            words,
            log: log.to_owned(),
            running: None,
        };
        this.resume()?;
        Ok(this)
    }

    /// The kernel ends the program with the *thread* that started it (prctl(2), `PR_SET_PDEATHSIG`), and a test's
    /// thread may end long before what it started is done with: so it is a thread of its own.
    fn resume(&mut self) -> Result<()> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.words);
        process::log_to(&mut command, &self.log)?;
        let (quit, until) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let keeper = thread::spawn(move || {
            let child = command.spawn();
            let (outcome, child) = match child {
                Ok(child) => (Ok(child.id()), Some(child)),
                Err(error) => (Err(error), None),
            };
            // The receiver is gone only if its thread is.
            let _ = report.send(outcome);
            let _ = until.recv();
            if let Some(child) = child {
                reap(child);
            }
        });
        let pid = started
            .recv()
            .context("the thread that starts a server")?
            .with_context(|| format!("starting {}", self.words[0]))?;
        let process = Recorded::of(pid).ok_or_else(|| anyhow!("{} ended at once", self.words[0]))?;
        self.running = Some(Running {
            process,
            quit,
            keeper,
        });
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let asked = running.process.end(Signal::SIGTERM, GRACE);
        let ended = asked.or_else(|_| running.process.end(Signal::SIGKILL, GRACE));
        drop(running.quit);
        if ended.is_ok() && running.keeper.join().is_err() {
            bail!("the thread that keeps {} panicked", self.words[0]);
        }
        ended
    }

    fn check_alive(&self) -> Result<()> {
        match &self.running {
            Some(running) if running.process.is_alive() => Ok(()),
            _ => bail!("{} ended; {}", self.words[0], process::tail(&self.log)),
        }
    }
}

fn reap(mut child: Child) {
    // It has been told to end. If it cannot be waited for, it is somebody else's.
    let _ = child.wait();
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// Ports of the loopback interface that nobody listens at. Another process may take one before it is used; the kernel
/// hands them out in turn, so that is rare.
fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
