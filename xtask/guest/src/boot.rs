//! A machine that has nothing but an unpacked archive: file systems, kernel modules, `lo`; and turning it off.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Type and place, in the order in which one needs the other.
const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Modules of this kernel, named in the order in which one needs the other.
const MODULES: &str = "/modules";

pub(crate) fn furnish() -> Result<()> {
    for (kind, place) in FILE_SYSTEMS {
        fs::create_dir_all(place).with_context(|| (*place).to_owned())?;
        let options: Option<&str> = None;
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), options)
            .with_context(|| format!("mounting {kind} at {place}"))?;
    }
    for module in files(Path::new(MODULES))? {
        let file = File::open(&module).with_context(|| module.display().to_string())?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", module.display()))?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    ensure!(up.context("ip")?.success(), "lo does not come up");
    Ok(())
}

/// Ends the virtual machine. What is not written is lost, and nothing is written.
pub(crate) fn turn_off() -> Result<()> {
    let never = reboot(RebootMode::RB_POWER_OFF).context("turning off")?;
    match never {}
}

/// Paths in a directory, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
