//! What every test of the kernel side stands on: a thread with a network and a mount namespace of its own, a bpffs
//! that ends with them, and a cgroup.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

pub mod flows;
pub mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use aya::programs::links::{FdLink, PinnedLink};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use weir_agent::kernel::{AttachBy, Capacities, Config, Kernel, OBJECT};

/// Small maps: a test makes several of each.
pub const CAPACITIES: Capacities = Capacities {
    flows: 1_000,
    addresses: 512,
    cidrs: 512,
    policy: 512,
    ports: 512,
    workloads: 64,
    services: 512,
    backends: 512,
    rules: 64,
    numbers: 512,
    non_masquerade: 16,
};

const PREFIX: &str = "weir-test-";

#[derive(Debug)]
pub struct Bed {
    dir: TempDir,
    pub cgroup: PathBuf,
}

/// Runs the test where nothing of the host can be reached by accident.
pub fn in_bed(test: impl FnOnce(&Bed) + Send) {
    assert!(
        fs::metadata("/proc/self").expect("proc").uid() == 0,
        "this test loads BPF programs and makes network namespaces: run it as root (`make test`)"
    );
    let done = thread::scope(|scope| {
        scope
            .spawn(|| {
                let bed = Bed::new();
                test(&bed);
            })
            .join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

impl Bed {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        sweep();
        let cgroup = cgroup2().join(&name);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("new namespaces");
        // What is mounted from here on is seen by this thread alone, and ends with it.
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private mounts");
        let dir = tempfile::Builder::new()
            .prefix(&name)
            .tempdir_in("/run")
            .expect("a directory under /run");
        fs::create_dir(&cgroup).expect("a cgroup");
        Self { dir, cgroup }
    }

    pub fn bpffs(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> Config {
        Config {
            object: OBJECT,
            bpffs: self.bpffs(),
            state: self.state(),
            capacities: CAPACITIES,
            attach_by: AttachBy::Best,
        }
    }

    pub fn kernel(&self) -> Kernel {
        open(self.config())
    }

    pub fn kernel_by(&self, attach_by: AttachBy) -> Kernel {
        open(Config {
            attach_by,
            ..self.config()
        })
    }

    /// Makes a pair of interfaces, and returns the index of the one with this name.
    pub fn veth(&self, name: &str) -> u32 {
        ip(&[
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            &format!("{name}-peer"),
        ]);
        if_nametoindex(name).expect("the interface just made")
    }

    /// Names below the directory of pins, sorted: `v1/maps/policy`. Without those that the kernel itself makes: they
    /// have a dot, which it lets nobody else use.
    pub fn pins(&self) -> Vec<String> {
        let mut pins = Vec::new();
        collect(&self.bpffs(), &self.bpffs(), &mut pins);
        pins.retain(|pin| !pin.contains('.'));
        pins.sort();
        pins
    }

    pub fn links(&self) -> Vec<String> {
        self.pins()
            .into_iter()
            .filter_map(|pin| pin.strip_prefix("links/").map(str::to_owned))
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Without a bpffs on it there is nothing to unmount.
        let _ = umount2(&self.bpffs(), MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("removing {}: {error}", self.cgroup.display());
        }
    }
}

pub fn open(config: Config) -> Kernel {
    Kernel::open(config).unwrap_or_else(|error| panic!("{error:#}"))
}

pub fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// Standard output of a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes what killed tests left: their namespaces ended with them, a directory and a cgroup did not.
fn sweep() {
    for dir in [PathBuf::from("/run"), cgroup2()] {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                // Another test may be faster. A cgroup's files go with it.
                let _ = fs::remove_dir(entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    mount.expect("a cgroup2 file system must be mounted")
}

fn collect(root: &Path, dir: &Path, pins: &mut Vec<String>) {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        entries => entries.expect("a directory"),
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, pins);
        } else {
            pins.push(path.strip_prefix(root).expect("below").display().to_string());
        }
    }
}

/// Id of the program behind a pinned link.
pub fn linked_program(bed: &Bed, link: &str) -> u32 {
    let path = bed.bpffs().join("links").join(link);
    let pinned = PinnedLink::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    FdLink::from(pinned)
        .info()
        .expect("a link has information")
        .program_id()
}

/// Names and program ids of the BPF filters on one side of an interface.
pub fn filters(interface: &str, direction: &str) -> BTreeMap<String, u32> {
    let shown = run("tc", &["filter", "show", "dev", interface, direction]);
    // filter protocol all pref 7 bpf chain 0 handle 0x57650001 from_pod direct-action not_in_hw id 12 name from_pod ...
    shown
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| {
                words
                    .iter()
                    .position(|w| *w == word)
                    .and_then(|at| words.get(at + 1))
            };
            let handle = words.iter().position(|word| *word == "handle")?;
            Some((words.get(handle + 2)?.to_string(), after("id")?.parse().ok()?))
        })
        .collect()
}
