//! `config/default/weir.yaml`: what the chart makes with its default values, for who installs with kustomize.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::args::Manifests;
use crate::checkout::Checkout;
use crate::{helm, process};

const CHART: &str = "charts/weir";
/// Values for clusters of several kinds, with which the chart must do as well.
const VALUES: &str = "charts/weir/ci";
const RENDERED: &str = "config/default/weir.yaml";
const HEADER: &str =
    "# Made by `cargo xtask manifests` from charts/weir with its default values. Edit the chart.\n";

pub(crate) fn run(checkout: &Checkout, options: &Manifests) -> Result<()> {
    let text = rendered(checkout)?;
    check_values(checkout)?;
    let path = checkout.root().join(RENDERED);
    if !options.check {
        return fs::write(&path, text).with_context(|| format!("writing {RENDERED}"));
    }
    let found = fs::read_to_string(&path).with_context(|| format!("reading {RENDERED}"))?;
    if found != text {
        bail!("{RENDERED} is not what {CHART} makes: run `cargo xtask manifests`");
    }
    Ok(())
}

/// Lints and renders the chart. The definitions are left out: kustomize takes them from `crds/`.
fn rendered(checkout: &Checkout) -> Result<String> {
    let helm = helm::ensure()?;
    process::run(helm_in(checkout, &helm).args(["lint", "--quiet", "--strict", CHART]))?;
    let text = template(helm_in(checkout, &helm), "--set=crds.install=false")?;
    Ok(with_header(&text))
}

/// Lints and renders the chart with each file of values. What it makes differs from file to file, or one says nothing.
fn check_values(checkout: &Checkout) -> Result<()> {
    let helm = helm::ensure()?;
    let mut rendered = BTreeMap::new();
    for file in fs::read_dir(checkout.root().join(VALUES)).with_context(|| format!("reading {VALUES}"))? {
        let values = format!("--values={}", file.context(VALUES)?.path().display());
        process::run(helm_in(checkout, &helm).args(["lint", "--quiet", "--strict", CHART, &values]))?;
        let text = template(helm_in(checkout, &helm), &values)?;
        if let Some(same) = rendered.insert(text, values.clone()) {
            bail!("{same} and {values} make the same of {CHART}");
        }
    }
    if rendered.is_empty() {
        bail!("{VALUES} is empty");
    }
    Ok(())
}

fn helm_in(checkout: &Checkout, helm: &Path) -> Command {
    let mut command = Command::new(helm);
    command.current_dir(checkout.root());
    command
}

fn template(mut helm: Command, option: &str) -> Result<String> {
    helm.args(["template", "weir", CHART, "--namespace=weir-system", option]);
    let output = helm.output().context("starting helm")?;
    process::check(&helm, output.status)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    String::from_utf8(output.stdout).context("what helm made is no text")
}

/// Without Helm's remarks on which template an object is from.
fn with_header(rendered: &str) -> String {
    let lines = rendered.lines().filter(|line| !line.starts_with("# Source: "));
    let mut text = HEADER.to_owned();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_helms_own_remarks_go() {
        let rendered = "---\n# Source: weir/templates/a.yaml\n# Why it is so.\nkind: A\n";
        assert_eq!(
            with_header(rendered),
            format!("{HEADER}---\n# Why it is so.\nkind: A\n")
        );
    }
}
