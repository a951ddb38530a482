//! Makes the container images of Weir's own programs, from scratch: static binaries and nothing else. No container
//! engine takes part.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool: its standard output is its report"
)]

mod build;
mod contents;
mod elf;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use weir_e2e::images::archive;

#[derive(Debug, Parser)]
#[command(name = "weir-images")]
struct Args {
    /// The checkout to build
    #[arg(long, value_name = "DIR")]
    checkout: PathBuf,
    /// Where the archives go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The tag of the images, beside the version
    #[arg(long, default_value = "dev")]
    tag: String,
    /// The target to build for. By default this machine's: musl where it is installed, glibc otherwise
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let target = match &args.target {
        Some(target) => target.clone(),
        None => build::default_target()?,
    };
    let binaries = build::binaries(&args.checkout, &target)?;
    fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    for image in contents::images(&binaries, &args.tag) {
        let to = args.out.join(format!("{}.tar", image.name));
        archive::write(&image, &to).with_context(|| format!("making the image {}", image.name))?;
        let bytes = fs::metadata(&to)?.len();
        println!(
            "{} ({} MB): {}",
            to.display(),
            bytes / 1_000_000,
            image.tags.join(", ")
        );
    }
    Ok(())
}
