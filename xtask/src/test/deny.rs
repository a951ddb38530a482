//! cargo-deny, on every lockfile of the tree.

use std::process::Command;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::process;
use crate::steps::Outcome;
use crate::tools::CARGO_DENY;

/// Lockfiles, and how to take an exception of `deny.toml` that a lockfile has no use for: the workspace's is the
/// one that they are written for.
const MANIFESTS: &[(&str, &str)] = &[
    ("Cargo.toml", "--deny"),
    ("bpf/Cargo.toml", "--allow"),
    ("fuzz/Cargo.toml", "--allow"),
];

/// Advisories are not among the checks: their database is fetched from the internet, and a run of the tests must
/// not depend on more than the package registry.
const CHECKS: &[&str] = &["bans", "licenses", "sources"];

pub(super) fn run(checkout: &Checkout) -> Result<Outcome> {
    let program = CARGO_DENY.ensure()?;
    for (manifest, unused_exceptions) in MANIFESTS {
        let mut command = Command::new(&program);
        command
            .args([
                "--locked",
                "--manifest-path",
                manifest,
                "--config",
                "deny.toml",
                "check",
            ])
            .args([unused_exceptions, "unmatched-skip"])
            .args(CHECKS)
            .current_dir(checkout.root());
        process::run(&mut command)?;
    }
    Ok(Outcome::Passed)
}
