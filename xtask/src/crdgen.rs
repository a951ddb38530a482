//! The CustomResourceDefinitions, made from the types in `crates/api`.

use anyhow::Result;

use crate::args::Crdgen;
use crate::checkout::Checkout;
use crate::process;

/// kustomize and people read the first, Helm the second, which has to lie in the chart.
const FOLDERS: [&str; 2] = ["crds", "charts/weir/files/crds"];

pub(crate) fn run(checkout: &Checkout, options: &Crdgen) -> Result<()> {
    // A program of its own, so that the tasks do not wait for the API types to compile.
    let mut command = checkout.cargo("run");
    command.args(["--quiet", "--locked", "--package", "weir-crdgen", "--"]);
    if options.check {
        command.arg("--check");
    }
    process::run(command.args(FOLDERS))
}
