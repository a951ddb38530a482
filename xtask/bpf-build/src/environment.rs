//! The environment in which another toolchain's cargo runs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Variables that say who and where we are, and how the network is reached.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_TERM_COLOR",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "RUSTUP_HOME",
    "TERM",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
];

/// The same, as prefixes; compared without regard to case, since `http_proxy` is written both ways.
const KEPT_PREFIXES: &[&str] = &[
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "SSL_CERT_",
];

/// A command that inherits nothing of the toolchain which runs us.
///
/// Cargo and rustup export their compiler, flags, target directory and library path to what they run. Any of
/// them would make another toolchain's cargo use the wrong compiler, or build again what it has built already.
pub fn scrubbed(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(env::vars_os().filter(|(name, _)| is_kept(name)));
    command
}

fn is_kept(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let upper = name.to_ascii_uppercase();
    KEPT.contains(&name)
        || KEPT_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
        || upper.ends_with("_PROXY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_identity_and_network_but_no_toolchain() {
        let kept = |name: &str| is_kept(&OsString::from(name));
        for name in [
            "PATH",
            "HOME",
            "https_proxy",
            "NO_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_HOME",
        ] {
            assert!(kept(name), "{name}");
        }
        for name in [
            "RUSTC",
            "RUSTFLAGS",
            "CARGO",
            "CARGO_TARGET_DIR",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            assert!(!kept(name), "{name}");
        }
    }
}
