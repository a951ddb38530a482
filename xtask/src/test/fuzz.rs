//! A short run of each fuzz target: enough to find what breaks at once, and to keep the targets building.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use weir_bpf_build::environment::scrubbed;

use crate::checkout::Checkout;
use crate::process;
use crate::steps::Outcome;
use crate::tools::CARGO_FUZZ;

pub(super) fn run(checkout: &Checkout, seconds: u32) -> Result<Outcome> {
    // The sanitizers' flags are nightly's.
    if process::answer(scrubbed("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
        let why = "needs rustup's nightly: rustup toolchain install nightly --profile minimal";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let tool = CARGO_FUZZ.ensure()?;
    let bin = tool.parent().context("the tool lies in a folder")?;
    let listed = process::answer(cargo_fuzz(checkout, bin, "list").args(["--fuzz-dir", "fuzz"]))
        .context("`cargo fuzz list` failed")?;
    let targets: Vec<&str> = listed.split_whitespace().collect();
    if targets.is_empty() {
        bail!("fuzz/Cargo.toml has no target");
    }
    let target_dir = checkout.target().join("fuzz");
    for target in targets {
        // What a run finds goes to the first folder, which is not tracked; seeds are only read.
        let corpus = Path::new("fuzz/corpus").join(target);
        fs::create_dir_all(checkout.root().join(&corpus))?;
        let seeds = Path::new("fuzz/seeds").join(target);
        let mut command = cargo_fuzz(checkout, bin, "run");
        command
            .args(["--fuzz-dir", "fuzz", "--target-dir"])
            .arg(&target_dir)
            .arg(target)
            .arg(corpus);
        command.args(checkout.root().join(&seeds).is_dir().then_some(seeds));
        command.args([
            "--",
            &format!("-max_total_time={seconds}"),
            "-print_final_stats=1",
        ]);
        process::run(&mut command)?;
    }
    Ok(Outcome::Passed)
}

fn cargo_fuzz(checkout: &Checkout, bin: &Path, subcommand: &str) -> Command {
    let mut path = OsString::from(bin);
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let mut command = scrubbed("rustup");
    command
        .args(["run", "nightly", "cargo", "fuzz", subcommand])
        .env("PATH", path)
        .current_dir(checkout.root());
    command
}
