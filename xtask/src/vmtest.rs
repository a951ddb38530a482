//! The programs on older kernels: each kernel in an emulated machine, with the agent and the demo as this machine
//! builds and links them, so that what is different is the kernel alone.

mod archive;
mod kernels;
mod machine;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::args::Vmtest;
use crate::checkout::Checkout;
use crate::steps::Outcome;
use crate::{demo, process, setup};
use archive::Check;
use kernels::KERNELS;
use report::{Report, table};

/// Tests of the agent that are worth their time on every kernel: packets under `BPF_PROG_TEST_RUN`, and attaching.
const TESTS: &[&str] = &["packets", "kernel_attach"];

const NOT_X86: &str = "the machines have this machine's programs, and are of x86-64";

pub(crate) fn run(checkout: &Checkout, options: &Vmtest) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("{NOT_X86}");
    }
    let chosen: Vec<_> = KERNELS
        .iter()
        .filter(|kernel| options.kernel.is_empty() || options.kernel.iter().any(|one| one == kernel.version))
        .collect();
    if chosen.is_empty() {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.version).collect();
        bail!("no such kernel; there are {}", known.join(", "));
    }
    println!("== setup: what this machine lacks");
    setup::run()?;
    setup::virtual_machines::run()?;
    println!("== build: the agent, the demo, and what starts them in a machine");
    demo::build_debug(checkout)?;
    let checks = checks(checkout, options)?;
    let directory = checkout.target().join("vmtest");
    let base = archive::of_programs(checkout, &directory, &checks)?;

    let mut reports = Vec::new();
    for kernel in chosen {
        println!("== Linux {}: {}", kernel.version, describe(&checks));
        let unpacked = kernels::ensure(kernel, options)?;
        let machine = machine::Machine {
            image: unpacked.image.clone(),
            archive: archive::with_modules(&base, &directory, kernel.version, &unpacked)?,
            log: directory.join(format!("{}.log", kernel.version)),
            patience: Duration::from_secs(options.timeout),
        };
        reports.push(Report::of(kernel.version, &checks, &machine.run()?));
    }
    println!("\n== summary\n{}", table(&reports));
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| !report.passed())
        .map(|report| report.version)
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed on Linux {}; what the machines said is in {}",
            failed.join(", "),
            directory.display()
        );
    }
    Ok(())
}

/// Every kernel, where that can be done.
pub(crate) fn as_step(checkout: &Checkout) -> Result<Outcome> {
    let options = Vmtest {
        kernel: Vec::new(),
        packets: false,
        update: false,
        mirror: Vec::new(),
        timeout: 900,
    };
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped(NOT_X86.to_owned()));
    }
    if !kernels::can_be_had()? {
        return Ok(Outcome::Skipped("no source of Debian's kernels here".to_owned()));
    }
    run(checkout, &options).map(|()| Outcome::Passed)
}

fn describe(checks: &[Check]) -> String {
    let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
    names.join(", ")
}

fn checks(checkout: &Checkout, options: &Vmtest) -> Result<Vec<Check>> {
    let built = |name: &str| checkout.target().join("debug").join(name);
    let mut checks = vec![
        Check::new("programs", built("weir-guest"), &["programs"]),
        Check::new("demo", built("weir-demo"), &["--samples", archive::SAMPLES]),
    ];
    if options.packets {
        for (name, program) in tests(checkout)? {
            checks.push(Check::new(&name, program, &[]));
        }
    }
    Ok(checks)
}

/// Builds [`TESTS`]; says where cargo put them.
fn tests(checkout: &Checkout) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = checkout.cargo("test");
    cargo.args([
        "--locked",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.args(TESTS.iter().flat_map(|test| ["--test", test]));
    println!("$ {}", process::words(&cargo));
    let output = cargo
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    process::check(&cargo, output.status)?;
    let mut found = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message.context("what cargo says")?
            && let Some(program) = artifact.executable
            && TESTS.contains(&artifact.target.name.as_str())
        {
            found.push((artifact.target.name, program.into_std_path_buf()));
        }
    }
    Ok(found)
}
