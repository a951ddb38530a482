//! What the agent finds and makes of a node's mounts, in mount namespaces of its own: one is the node, the other the pod.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tempfile::TempDir;
use weir_agent::mountinfo::{Mount, parse};
use weir_agent::{cgroup2, node_bpffs};

/// A thread that keeps a mount namespace, as the first process of a node does.
struct Node {
    /// Where the thread's own `/proc` entry is.
    proc: PathBuf,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// In its namespace, a tmpfs is mounted at `directory`.
    fn start(directory: &Path) -> Self {
        let (told, tid) = channel();
        let (end, ended): (Sender<()>, Receiver<()>) = channel();
        let directory = directory.to_owned();
        let thread = thread::spawn(move || {
            private_mounts();
            new("tmpfs", &directory);
            told.send(gettid()).expect("sent");
            // Ends with the sender.
            let _ = ended.recv();
        });
        let tid = tid.recv().expect("the thread runs");
        Self {
            proc: PathBuf::from(format!("/proc/self/task/{tid}")),
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// A folder that looks like the node's `/proc`.
    fn proc_in(&self, directory: &Path) -> PathBuf {
        let proc = directory.join("proc");
        fs::create_dir_all(proc.join("1/ns")).expect("made");
        let task = fs::canonicalize("/proc/self")
            .expect("a process")
            .join(self.proc.strip_prefix("/proc/self").expect("below it"));
        symlink(task.join("ns/mnt"), proc.join("1/ns/mnt")).expect("linked");
        proc
    }

    fn mounts_below(&self, directory: &Path) -> Vec<Mount> {
        let text = fs::read_to_string(self.proc.join("mountinfo")).expect("its mounts");
        let mut mounts = parse(&text);
        mounts.retain(|mount| mount.point.starts_with(directory));
        mounts
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs the test on a thread whose mounts nobody else sees, with a folder.
fn in_a_pod(test: impl FnOnce(&Path) + Send) {
    assert!(
        fs::metadata("/proc/self").expect("proc").uid() == 0,
        "this test mounts: run it as root (`make test`)"
    );
    let directory: TempDir = tempfile::Builder::new()
        .prefix("weir-test-")
        .tempdir_in("/run")
        .expect("a folder");
    let done = thread::scope(|scope| {
        let inside = || {
            private_mounts();
            test(directory.path());
        };
        scope.spawn(inside).join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
}

fn new(kind: &str, point: &Path) {
    fs::create_dir_all(point).expect("a mount point");
    mount(Some("none"), point, Some(kind), MsFlags::empty(), None::<&str>).expect(kind);
}

fn of(point: &Path, kind: &str, source: &str) -> Mount {
    Mount {
        point: point.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
    }
}

#[test]
fn a_bpffs_is_mounted_on_the_node_and_not_in_the_pod() {
    in_a_pod(|directory| {
        let (disk, bpffs) = (directory.join("node"), directory.join("node/bpf"));
        fs::create_dir(&disk).expect("made");
        let node = Node::start(&disk);
        let proc = node.proc_in(directory);
        let without = vec![of(&disk, "tmpfs", "none")];
        let with = vec![of(&disk, "tmpfs", "none"), of(&bpffs, "bpf", "weir")];

        assert!(!node_bpffs::unmount(&proc, &disk).expect("nothing to do"));
        assert!(node_bpffs::mount(&proc, &bpffs).expect("mounted"));
        assert_eq!(node.mounts_below(directory), with);
        assert!(!bpffs.exists(), "the pod has its own mounts");
        assert!(!node_bpffs::mount(&proc, &bpffs).expect("there already"));
        assert_eq!(node.mounts_below(directory), with);

        // What somebody has pinned stays, and the mount with it.
        let pinned = node
            .proc
            .join("root")
            .join(bpffs.strip_prefix("/").expect("below"))
            .join("theirs");
        fs::create_dir(&pinned).expect("made");
        assert!(!node_bpffs::unmount(&proc, &bpffs).expect("in use"));
        assert_eq!(node.mounts_below(directory), with);
        fs::remove_dir(&pinned).expect("removed");
        assert!(node_bpffs::unmount(&proc, &bpffs).expect("unmounted"));
        assert_eq!(node.mounts_below(directory), without);
        assert!(!node_bpffs::unmount(&proc, &bpffs).expect("nothing to do"));
    });
}

#[test]
fn only_a_directory_on_a_bpffs_will_do() {
    in_a_pod(|directory| {
        let bpffs = directory.join("bpf");
        let wanted = bpffs.join("weir");
        node_bpffs::require(&wanted).expect_err("nothing is mounted");
        new("tmpfs", &bpffs);
        node_bpffs::require(&wanted).expect_err("a tmpfs");
        new("bpf", &bpffs);
        node_bpffs::require(&wanted).expect("a bpffs");
        fs::create_dir(&wanted).expect("made");
        node_bpffs::require(&wanted).expect("a directory of it");
    });
}

#[test]
fn cgroup2_is_found_in_both_layouts() {
    in_a_pod(|directory| {
        let groups = directory.join("cgroup");
        new("tmpfs", &groups);
        assert_eq!(cgroup2::find(&groups).expect("mounts"), None);
        let unified = groups.join("unified");
        new("cgroup2", &unified);
        assert_eq!(cgroup2::find(&groups).expect("mounts"), Some(unified.clone()));
        // What lies under another mount cannot be reached.
        new("tmpfs", &unified);
        assert_eq!(cgroup2::find(&groups).expect("mounts"), None);
        new("cgroup2", &groups);
        assert_eq!(cgroup2::find(&groups).expect("mounts"), Some(groups));
    });
}
