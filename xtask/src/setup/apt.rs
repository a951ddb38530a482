//! Debian's and Ubuntu's packages.

use std::process::Command;

use anyhow::Result;

use crate::privilege::as_root;
use crate::process;

/// Apt, and whether its package lists were refreshed by us: once is enough.
#[derive(Debug, Default)]
pub(super) struct Apt {
    updated: bool,
}

impl Apt {
    pub(super) fn is_here() -> bool {
        process::on_path("apt-get").is_some()
    }

    /// The version that would be installed, or is; refreshes the package lists before it answers `None`.
    pub(super) fn offers(&mut self, package: &str) -> Result<Option<String>> {
        if !Self::is_here() {
            return Ok(None);
        }
        if let Some(version) = candidate(package) {
            return Ok(Some(version));
        }
        self.update()?;
        Ok(candidate(package))
    }

    pub(super) fn install(&mut self, packages: &[&str]) -> Result<()> {
        for package in packages {
            // A package without a candidate means that the lists were never fetched.
            self.offers(package)?;
        }
        println!("installing packages: {}", packages.join(" "));
        let install = || -> Result<()> {
            let mut command = as_root("env")?;
            command
                .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"])
                .arg("--no-install-recommends")
                .args(packages);
            process::run(&mut command)
        };
        match install() {
            // Stale lists name versions that the mirror has dropped.
            Err(_) if !self.updated => {
                self.update()?;
                install()
            }
            outcome => outcome,
        }
    }

    fn update(&mut self) -> Result<()> {
        if !self.updated {
            process::run(as_root("apt-get")?.args(["update", "-q"]))?;
            self.updated = true;
        }
        Ok(())
    }
}

fn candidate(package: &str) -> Option<String> {
    let mut command = Command::new("apt-cache");
    command.args(["policy", package]).env("LC_ALL", "C");
    parse_candidate(&process::answer(&mut command)?)
}

/// The candidate in what `apt-cache policy` prints.
fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_candidate() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(parse_candidate(policy), Some("1.96.0+dfsg1-1~deb12u2".to_owned()));
        assert_eq!(parse_candidate("x:\n  Installed: 1\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }
}
