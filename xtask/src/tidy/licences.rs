//! Every crate names its licence, and the right one.

use super::Finding;
use super::sources::Crate;

const PROJECT: &str = "Apache-2.0";

/// The programs that run in the kernel: helpers there are open to GPL-compatible programs only.
const KERNEL: &str = "MIT OR GPL-2.0-only";

/// Crates that are also compiled into the kernel's programs, so that those can be under either of their licences.
const SHARED_WITH_KERNEL: &[&str] = &["weir-abi", "weir-datapath"];
const SHARED: &str = "Apache-2.0 OR MIT";

pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    crates.iter().filter_map(check_crate).collect()
}

fn check_crate(one: &Crate) -> Option<Finding> {
    let expected = match one.name.as_str() {
        "weir-bpf" => KERNEL,
        name if SHARED_WITH_KERNEL.contains(&name) => SHARED,
        _ => PROJECT,
    };
    match one.licence.as_deref() {
        Some(licence) if licence == expected => None,
        Some(licence) => Some(format!(
            "{}: its licence is `{licence}`, not `{expected}`",
            one.name
        )),
        None => Some(format!(
            "{}: Cargo.toml lacks `license = \"{expected}\"`",
            one.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_has_the_licence_of_where_it_runs() {
        let named = |name: &str, licence: Option<&str>| Crate {
            name: name.to_owned(),
            licence: licence.map(str::to_owned),
            dependencies: Vec::new(),
        };
        let crates = [
            named("weir-agent", Some("Apache-2.0")),
            named("weir-bpf", Some("MIT OR GPL-2.0-only")),
            named("weir-abi", Some("Apache-2.0 OR MIT")),
            named("weir-datapath", Some("Apache-2.0")),
            named("xtask", None),
        ];
        let expected = [
            "weir-datapath: its licence is `Apache-2.0`, not `Apache-2.0 OR MIT`",
            "xtask: Cargo.toml lacks `license = \"Apache-2.0\"`",
        ];
        assert_eq!(check(&crates), expected);
    }
}
