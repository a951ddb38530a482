//! The container images of Weir's programs.

use anyhow::Result;

use crate::args::Images;
use crate::checkout::Checkout;
use crate::process;

pub(crate) fn run(checkout: &Checkout, options: &Images) -> Result<()> {
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| checkout.target().join("images"));
    let mut command = checkout.cargo("run");
    command
        .args([
            "--quiet",
            "--locked",
            "--package",
            "weir-images",
            "--",
            "--checkout",
        ])
        .arg(checkout.root())
        .arg("--out")
        .arg(out)
        .args(["--tag", &options.tag]);
    if let Some(target) = &options.target {
        command.args(["--target", target]);
    }
    process::run(&mut command)
}
