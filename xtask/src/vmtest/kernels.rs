//! Debian's kernels, fetched with an apt state of their own and unpacked into the cache; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use weir_bpf_build::cache;

use crate::args::Vmtest;
use crate::process;

/// A kernel, and the release of Debian whose kernel it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) version: &'static str,
    suite: &'static str,
}

/// The oldest that Weir runs on, and those between it and the newest.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        version: "5.10",
        suite: "bullseye",
    },
    Kernel {
        version: "6.1",
        suite: "bookworm",
    },
    Kernel {
        version: "6.12",
        suite: "trixie",
    },
];

/// Depends on the newest kernel of a release, with the drivers that virtual machines need.
const PACKAGE: &str = "linux-image-cloud-amd64";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub(super) struct Unpacked {
    pub(super) image: PathBuf,
    /// The folder with the modules' tree.
    pub(super) modules: PathBuf,
}

/// Whether [`ensure`] has all of them, or knows where to fetch them.
pub(super) fn can_be_had() -> Result<bool> {
    let home = home()?;
    let cached = KERNELS.iter().all(|kernel| home.join(kernel.version).exists());
    Ok(cached || (Path::new(KEYRING).is_file() && !mirrors().unwrap_or_default().is_empty()))
}

fn home() -> Result<PathBuf> {
    Ok(cache::dir()?.join("kernels"))
}

/// The kernel from the cache, fetched if it is not there.
pub(super) fn ensure(kernel: &Kernel, options: &Vmtest) -> Result<Unpacked> {
    let home = home()?.join(kernel.version);
    if options.update && home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))?;
    }
    if !home.exists() {
        let mirrors = if options.mirror.is_empty() {
            mirrors()?
        } else {
            options.mirror.clone()
        };
        let partial = home.with_file_name(format!("{}.partial", kernel.version));
        let _ = fs::remove_dir_all(&partial);
        fetch(kernel, &mirrors, &partial)?;
        fs::rename(&partial, &home).with_context(|| home.display().to_string())?;
    }
    unpacked(&home)
}

fn unpacked(home: &Path) -> Result<Unpacked> {
    let image = only(&home.join("boot"), "vmlinuz-")?;
    // Before Debian 13, below /lib; since then, below /usr/lib.
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .map(|place| home.join(place))
        .find(|place| place.is_dir())
        .with_context(|| format!("{}: no modules", home.display()))?;
    Ok(Unpacked { image, modules })
}

fn only(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut found = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let entry = found
        .next()
        .with_context(|| format!("{}: no {prefix}*", directory.display()))?;
    Ok(entry.path())
}

/// Where this machine's apt takes Debian's packages from: the archive, and that of security updates.
fn mirrors() -> Result<Vec<String>> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]);
    let listed = process::answer(&mut command).context("`apt-get indextargets` failed")?;
    let mut mirrors: Vec<String> = listed.lines().filter_map(debian).collect();
    mirrors.sort();
    mirrors.dedup();
    if mirrors.is_empty() {
        bail!(
            "apt has no source of Debian's packages here, or its lists were never fetched: run `apt-get update`, or name \
             mirrors, of the archive and of its security updates, with --mirror"
        );
    }
    Ok(mirrors)
}

fn debian(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (origin, label, uri) = (words.next()?, words.next()?, words.next()?);
    (origin == "Debian" && label.starts_with("Debian")).then(|| uri.trim_end_matches('/').to_owned())
}

fn fetch(kernel: &Kernel, mirrors: &[String], into: &Path) -> Result<()> {
    println!("fetching Debian's kernel {}, some 50 MB, once", kernel.version);
    let apt = Apt::new(kernel.suite, mirrors, &into.join("apt"))?;
    process::run(apt.command("apt-get").args(["-q", "update"]))?;
    let package = apt.kernel_package()?;
    process::run(
        apt.command("apt-get")
            .args(["-q", "download", &package])
            .current_dir(&apt.home),
    )?;
    let archive = only(&apt.home, "linux-image-")?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(into))?;
    fs::remove_dir_all(&apt.home).with_context(|| apt.home.display().to_string())
}

/// Apt with another release's sources, and with lists of its own.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn new(suite: &str, mirrors: &[String], home: &Path) -> Result<Self> {
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = home.join(folder);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let sources: String = mirrors
            .iter()
            .map(|mirror| {
                let security = if mirror.ends_with("security") {
                    "-security"
                } else {
                    ""
                };
                format!("deb [signed-by={KEYRING}] {mirror} {suite}{security} main\n")
            })
            .collect();
        for (file, text) in [("sources.list", sources.as_str()), ("status", "")] {
            let file = home.join(file);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        Ok(Self {
            home: home.to_owned(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for (key, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command
                .arg("-o")
                .arg(format!("{key}={}", self.home.join(value).display()));
        }
        // Root's apt gives up root to fetch, and could not write here then.
        command.args([
            "-o",
            "Dir::Etc::sourceparts=/dev/null",
            "-o",
            "APT::Sandbox::User=",
        ]);
        command
    }

    fn kernel_package(&self) -> Result<String> {
        let mut command = self.command("apt-cache");
        command.args(["depends", PACKAGE]);
        let depends = process::answer(&mut command).with_context(|| format!("no package {PACKAGE}"))?;
        depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|package| package.starts_with("linux-image-"))
            .map(str::to_owned)
            .with_context(|| format!("{PACKAGE} depends on no kernel:\n{depends}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_debians_archives_and_no_others() {
        let uri = |line| debian(line);
        assert_eq!(
            uri("Debian Debian https://mirror.example/debian/").as_deref(),
            Some("https://mirror.example/debian")
        );
        assert_eq!(
            uri("Debian Debian-Security https://mirror.example/debian-security/").as_deref(),
            Some("https://mirror.example/debian-security")
        );
        assert_eq!(uri("Ubuntu Ubuntu https://mirror.example/ubuntu/"), None);
        assert_eq!(uri(""), None);
    }
}
