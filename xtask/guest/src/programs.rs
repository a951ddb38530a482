//! Loads every program with the agent's own loader, attaches each to what it is for, and takes everything away again.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use weir_agent::kernel::{AttachBy, Capacities, Config, Hook, Kernel, OBJECT, remove_all};

const BPFFS: &str = "/sys/fs/bpf/weir";
const STATE: &str = "/run/weir-guest";
const CGROUP: &str = "/sys/fs/cgroup/weir-guest";

/// The hooks of a pod, an uplink and a cgroup.
const HOOKS: usize = Hook::ALL.len();

pub(crate) fn run() -> Result<()> {
    let mut kernel = Kernel::open(Config {
        object: OBJECT,
        bpffs: BPFFS.into(),
        state: STATE.into(),
        capacities: Capacities::default(),
        attach_by: AttachBy::Best,
    })?;
    for (name, size) in kernel.program_sizes()? {
        let verified = size.verified.map_or("-".to_owned(), |count| count.to_string());
        println!("weir-guest: program {name} {verified}");
    }
    attach(&mut kernel)?;
    let attached = kernel.attachments()?.len();
    ensure!(
        attached == HOOKS,
        "{attached} attachments, {HOOKS} were to be made"
    );
    let way = if kernel.abilities().tcx { "tcx" } else { "clsact" };
    println!("weir-guest: attached {way}");
    drop(kernel);
    remove_all(Path::new(BPFFS), Path::new(STATE))?;
    ip("link delete pod0")
}

fn attach(kernel: &mut Kernel) -> Result<()> {
    ip("link add pod0 type veth peer name uplink0")?;
    kernel.attach_pod(if_nametoindex("pod0").context("pod0")?)?;
    kernel.attach_uplink(if_nametoindex("uplink0").context("uplink0")?)?;
    fs::create_dir(CGROUP).context(CGROUP)?;
    kernel.attach_cgroup(Path::new(CGROUP))
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    ensure!(status.context("ip")?.success(), "ip {arguments} failed");
    Ok(())
}
