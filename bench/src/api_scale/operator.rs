//! The operator as a process of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_testbed::program;

use super::api::SYSTEM;

/// How long it may take to end when asked to.
const GRACE: Duration = Duration::from_secs(15);

/// It is killed when dropped.
#[derive(Debug)]
pub(super) struct Operator {
    child: Child,
    pub(super) started: Instant,
    /// Of its health and metrics.
    address: SocketAddr,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Operator {
    /// What it logs is appended to a file.
    pub(super) fn start(kubeconfig: &Path, log: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let started = Instant::now();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program("weir-operator")?)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", SYSTEM, "--identity", "bench"])
            .args(["--metrics-address", &address.to_string()])
            .args(["--log", "info,weir_operator=debug"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start weir-operator")?;
        Ok(Self {
            child,
            started,
            address,
        })
    }

    /// The time from its start until it says that it leads.
    pub(super) async fn until_it_leads(&self, patience: Duration) -> Result<Duration> {
        while self.started.elapsed() < patience {
            // Until it listens, there is no answer.
            let answer = self.ask("/readyz").await.unwrap_or_default();
            if answer.starts_with("HTTP/1.0 200") && answer.ends_with("leading\n") {
                return Ok(self.started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("weir-operator does not lead within {} s", patience.as_secs())
    }

    async fn ask(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Ends it as Kubernetes does.
    pub(super) fn stop(mut self) -> Result<()> {
        kill(self.pid()?, Signal::SIGTERM).context("ask weir-operator to end")?;
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("weir-operator does not end when asked to")
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("weir-operator has ended; see its log")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            number
                .map(|kibibytes| kibibytes * 1024)
                .with_context(|| format!("no {name} in /proc"))
        };
        Ok(Memory {
            resident: field("VmRSS")?,
            peak: field("VmHWM")?,
        })
    }

    /// The CPU time that it has used so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("weir-operator has ended; see its log")?;
        // The second field is the name in parentheses, which may hold blanks.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
        let ticks: Option<u64> = (fields.split(' ').skip(11).take(2))
            .map(|field| field.parse::<u64>().ok())
            .sum();
        let second = sysconf(SysconfVar::CLK_TCK)?.context("CLK_TCK")?;
        let seconds = ticks.context("/proc/PID/stat")? as f64 / second as f64;
        Ok(Duration::from_secs_f64(seconds))
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
