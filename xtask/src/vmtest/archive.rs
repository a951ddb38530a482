//! What a machine has: an initramfs with the checks, the programs that they start, and every library of those.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kernels::Unpacked;
use crate::checkout::Checkout;
use crate::process;

/// Where the machines have the sample manifests.
pub(super) const SAMPLES: &str = "/samples";

/// Ours that the checks start.
const OURS: &[&str] = &["weir-agent", "weir-traffic"];

/// Of this machine, that ours start.
const SYSTEM: &[&str] = &["ip", "nsenter", "sh", "tc"];

/// Modules of Debian's kernels, each after those that it needs. One that is missing is built in.
const MODULES: &[&str] = &[
    "veth",
    "sch_ingress",
    "cls_bpf",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "vxlan",
];

/// A program that says by its exit code whether all was well.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Check {
    pub(super) fn new(name: &str, program: PathBuf, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// A line of the list that the guest reads.
    fn line(&self) -> Result<String> {
        let mut words = vec![self.name.clone(), inside(&self.program)?];
        words.extend(self.arguments.iter().cloned());
        Ok(words.join(" ") + "\n")
    }
}

/// The archive that all machines have.
pub(super) fn of_programs(checkout: &Checkout, directory: &Path, checks: &[Check]) -> Result<PathBuf> {
    let root = empty(&directory.join("root"))?;
    let debug = checkout.target().join("debug");
    let mut programs: BTreeSet<PathBuf> = checks.iter().map(|check| check.program.clone()).collect();
    programs.extend(OURS.iter().map(|name| debug.join(name)));
    let init = debug.join("weir-guest");
    for program in &programs {
        let to = place(&root, &inside(program)?)?;
        process::run(Command::new("strip").arg("-o").arg(to).arg(program))?;
    }
    symlink(&inside(&init)?, &root.join("init"))?;
    for name in SYSTEM {
        let from = system(name)?;
        fs::copy(&from, place(&root, &format!("/bin/{name}"))?)
            .with_context(|| from.display().to_string())?;
        programs.insert(from);
    }
    for library in libraries(&programs)? {
        fs::copy(&library, place(&root, &library.display().to_string())?)
            .with_context(|| library.display().to_string())?;
    }
    samples(checkout, &root)?;
    let list: String = checks.iter().map(Check::line).collect::<Result<_>>()?;
    fs::write(root.join("checks"), list).context("the list of checks")?;
    pack(&root, &directory.join("programs.cpio"))
}

/// The archive of one machine: the kernel unpacks one archive after the other (Documentation/driver-api/early-userspace,
/// "buffer-format").
pub(super) fn with_modules(
    base: &Path,
    directory: &Path,
    version: &str,
    kernel: &Unpacked,
) -> Result<PathBuf> {
    let root = empty(&directory.join("modules"))?;
    let folder = root.join("modules");
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    for (number, module) in MODULES.iter().enumerate() {
        if let Some(file) = find_module(&kernel.modules, module)? {
            let to = folder.join(format!("{number}-{module}.ko"));
            copy_module(&file, &to).with_context(|| file.display().to_string())?;
        }
    }
    let modules = pack(&root, &directory.join("modules.cpio"))?;
    let whole = directory.join(format!("{version}.cpio"));
    let mut archive = File::create(&whole).with_context(|| whole.display().to_string())?;
    for part in [base, &modules] {
        io::copy(&mut File::open(part)?, &mut archive).with_context(|| whole.display().to_string())?;
    }
    Ok(whole)
}

/// Where a machine has a program of ours.
fn inside(program: &Path) -> Result<String> {
    let name = program.file_name().context("a program has a name")?;
    Ok(format!("/weir/{}", name.to_string_lossy()))
}

fn empty(directory: &Path) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    Ok(directory.to_owned())
}

/// The file below the root for an absolute path, with the folders that lead there.
fn place(root: &Path, path: &str) -> Result<PathBuf> {
    let to = root.join(path.trim_start_matches('/'));
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(to)
}

fn symlink(to: &str, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, link).with_context(|| link.display().to_string())
}

fn system(name: &str) -> Result<PathBuf> {
    process::on_path(name)
        .or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|path| path.is_file()))
        .with_context(|| format!("no {name} here"))
}

/// Every library that the programs are linked with, and the loader, at the places where the loader looks for them.
fn libraries(programs: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // It fails for a program that needs none.
        let output = Command::new("ldd")
            .arg(program)
            .output()
            .context("starting ldd")?;
        found.extend(parse_libraries(&String::from_utf8_lossy(&output.stdout)));
    }
    Ok(found)
}

/// Lines are `NAME => PATH (ADDRESS)`, and for the loader `PATH (ADDRESS)`.
fn parse_libraries(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn samples(checkout: &Checkout, root: &Path) -> Result<()> {
    let from = checkout.root().join("config/samples");
    for entry in fs::read_dir(&from)
        .with_context(|| from.display().to_string())?
        .flatten()
    {
        if entry.path().is_file() {
            let to = format!("{SAMPLES}/{}", entry.file_name().to_string_lossy());
            fs::copy(entry.path(), place(root, &to)?).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

fn find_module(tree: &Path, name: &str) -> Result<Option<PathBuf>> {
    let mut open = vec![tree.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if entry.file_name().to_string_lossy().split(".ko").next() == Some(name) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Debian compresses modules since 13.
fn copy_module(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|extension| extension == "xz") {
        let unpacked = Command::new("xz")
            .arg("-dc")
            .arg(from)
            .output()
            .context("starting xz")?;
        ensure!(unpacked.status.success(), "xz: {}", unpacked.status);
        fs::write(to, unpacked.stdout)?;
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    collect(root, root, &mut names)?;
    let file = File::create(archive).with_context(|| archive.display().to_string())?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "--create", "--format=newc", "--owner=0:0", "--null"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(file);
    let mut child = cpio.spawn().context("starting cpio")?;
    let mut input = child.stdin.take().context("cpio's input")?;
    for name in names {
        input.write_all(name.as_bytes())?;
        input.write_all(&[0])?;
    }
    drop(input);
    process::check(&cpio, child.wait()?)?;
    Ok(archive.to_owned())
}

/// Paths below the root, folders before what is in them.
fn collect(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    let mut paths: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    for path in paths {
        names.push(path.strip_prefix(root)?.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            collect(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x0000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x0000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_libraries(text), expected.map(PathBuf::from).into());
        assert_eq!(parse_libraries("\tnot a dynamic executable\n"), BTreeSet::new());
    }
}
