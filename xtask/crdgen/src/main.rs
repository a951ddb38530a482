//! Writes the CustomResourceDefinitions of the API types into folders, or says which files there differ.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool: its standard output is its report"
)]

mod definitions;
mod folder;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "weir-crdgen")]
struct Args {
    /// Write nothing; fail when a file differs, is missing, or should not be there
    #[arg(long)]
    check: bool,
    /// Folders of definitions
    #[arg(required = true)]
    folders: Vec<PathBuf>,
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
    let files = definitions::files()?;
    let mut differences = Vec::new();
    for folder in &args.folders {
        if args.check {
            differences.extend(folder::differences(folder, &files)?);
        } else {
            folder::write(folder, &files)?;
        }
    }
    for difference in &differences {
        println!("{difference}");
    }
    if !differences.is_empty() {
        bail!("the definitions are not those of crates/api: run `cargo xtask crdgen`");
    }
    Ok(())
}
