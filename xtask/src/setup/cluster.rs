//! What the local cluster is built with, and what goes into its images.

use std::path::Path;

use anyhow::{Result, bail};

use super::apt::Apt;
use crate::process;

/// Debian's packages, each known to be there by a program, or by a file.
const PACKAGES: &[(&str, Here)] = &[
    ("bash", Here::Program("bash")),
    ("bind9-dnsutils", Here::Program("dig")),
    ("conntrack", Here::Program("conntrack")),
    ("curl", Here::Program("curl")),
    ("gcc", Here::Program("cc")),
    ("iperf", Here::Program("iperf")),
    ("iproute2", Here::Program("ip")),
    ("libc6-dev", Here::File("/usr/include/stdio.h")),
    ("libseccomp-dev", Here::File("/usr/include/seccomp.h")),
    ("netcat-openbsd", Here::Program("nc")),
    ("pkg-config", Here::Program("pkg-config")),
    ("socat", Here::Program("socat")),
    ("util-linux", Here::Program("nsenter")),
    ("wget", Here::Program("wget")),
];

enum Here {
    Program(&'static str),
    File(&'static str),
}

impl Here {
    fn is_here(&self) -> bool {
        match self {
            Self::Program(name) => process::is_installed(name),
            Self::File(path) => Path::new(path).is_file(),
        }
    }
}

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(_, here)| !here.is_here())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Apt::is_here() {
        bail!(
            "the local cluster takes Debian's packages, and there is no apt-get here; it needs: {}",
            missing.join(" ")
        );
    }
    Apt::default().install(&missing)
}
