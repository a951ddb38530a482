//! `config/default/weir.yaml`: what the chart makes with its default values, for who installs with kustomize.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::args::Manifests;
use crate::checkout::Checkout;
use crate::{helm, process};

const CHART: &str = "charts/weir";
const RENDERED: &str = "config/default/weir.yaml";
const HEADER: &str =
    "# Made by `cargo xtask manifests` from charts/weir with its default values. Edit the chart.\n";

pub(crate) fn run(checkout: &Checkout, options: &Manifests) -> Result<()> {
    let text = rendered(checkout)?;
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
    let command = || {
        let mut command = Command::new(&helm);
        command.current_dir(checkout.root());
        command
    };
    process::run(command().args(["lint", "--quiet", "--strict", CHART]))?;
    let mut template = command();
    template.args([
        "template",
        "weir",
        CHART,
        "--namespace=weir-system",
        "--set=crds.install=false",
    ]);
    let output = template.output().context("starting helm")?;
    process::check(&template, output.status)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    let text = String::from_utf8(output.stdout).context("what helm made is no text")?;
    Ok(with_header(&text))
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
