//! Who may depend on whom. The table is the one of `ARCHITECTURE.md`; a crate that is not in it fails.

use super::Finding;
use super::sources::{Crate, Dependency};

/// What one crate may depend on.
struct Rule {
    name: &'static str,
    /// Crates of ours.
    ours: &'static [&'static str],
    /// Crates of ours that its tests may use beside those.
    ours_in_tests: &'static [&'static str],
    others: Others,
}

/// Crates of the registry.
enum Others {
    Any,
    Never(&'static [&'static str]),
    /// None but these.
    Only(&'static [&'static str]),
}

/// What waits, talks or touches a kernel: not for crates that think.
const IO: &[&str] = &[
    "aya",
    "kube-client",
    "kube-runtime",
    "libc",
    "nix",
    "rtnetlink",
    "tokio",
];

const RULES: &[Rule] = &[
    Rule {
        name: "weir-abi",
        ours: &[],
        ours_in_tests: &[],
        others: Others::Only(&[]),
    },
    Rule {
        name: "weir-datapath",
        ours: &["weir-abi"],
        ours_in_tests: &[],
        // Of the packet builders only: the feature `testing`.
        others: Others::Only(&["crc"]),
    },
    Rule {
        name: "weir-api",
        ours: &[],
        ours_in_tests: &[],
        others: Others::Never(IO),
    },
    Rule {
        name: "weir-policy",
        ours: &["weir-api"],
        ours_in_tests: &[],
        others: Others::Never(IO),
    },
    Rule {
        name: "weir-bpf",
        ours: &["weir-abi", "weir-datapath"],
        ours_in_tests: &[],
        others: Others::Only(&["aya-ebpf"]),
    },
    Rule {
        name: "weir-operator",
        ours: &["weir-api", "weir-policy"],
        ours_in_tests: &["weir-e2e"],
        others: Others::Never(&["aya", "aya-obj"]),
    },
    // Root runs it for each pod: it stays small.
    Rule {
        name: "weir-cni",
        ours: &[],
        ours_in_tests: &["weir-agent"],
        others: Others::Only(&["ipnet", "serde", "serde_json", "thiserror"]),
    },
    Rule {
        name: "weir-agent",
        ours: &[
            "weir-abi",
            "weir-api",
            "weir-bpf-build",
            "weir-cni",
            "weir-datapath",
            "weir-policy",
        ],
        ours_in_tests: &["weir-e2e", "weir-testbed"],
        others: Others::Any,
    },
    Rule {
        name: "weir-cli",
        ours: &["weir-api", "weir-policy"],
        ours_in_tests: &["weir-testbed"],
        others: Others::Never(&["aya", "aya-obj"]),
    },
    // Tools: they ship nothing.
    Rule {
        name: "weir-testbed",
        ours: &[],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-bench",
        ours: &[
            "weir-abi",
            "weir-agent",
            "weir-api",
            "weir-bpf-build",
            "weir-datapath",
            "weir-e2e",
            "weir-policy",
            "weir-testbed",
        ],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-fuzz",
        ours: &[
            "weir-abi",
            "weir-agent",
            "weir-api",
            "weir-datapath",
            "weir-policy",
        ],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-bpf-build",
        ours: &[],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-crdgen",
        ours: &["weir-api"],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-e2e",
        ours: &["weir-bpf-build"],
        ours_in_tests: &["weir-api", "weir-testbed"],
        others: Others::Any,
    },
    Rule {
        name: "weir-guest",
        ours: &["weir-agent"],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "weir-images",
        ours: &["weir-e2e"],
        ours_in_tests: &[],
        others: Others::Any,
    },
    Rule {
        name: "xtask",
        ours: &["weir-bpf-build"],
        ours_in_tests: &[],
        others: Others::Any,
    },
];

pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    crates.iter().flat_map(check_crate).collect()
}

fn check_crate(one: &Crate) -> Vec<Finding> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == one.name) else {
        return vec![format!(
            "{}: not in the table of xtask/src/tidy/dependencies.rs",
            one.name
        )];
    };
    one.dependencies
        .iter()
        .filter(|dependency| !is_allowed(rule, dependency))
        .map(|dependency| format!("{}: must not depend on {}", one.name, dependency.name))
        .collect()
}

fn is_allowed(rule: &Rule, dependency: &Dependency) -> bool {
    let name = dependency.name.as_str();
    if dependency.ours {
        // A crate's tests name the crate itself to turn on features that others do not need.
        if name == rule.name && !dependency.shipped {
            return true;
        }
        return rule.ours.contains(&name) || (!dependency.shipped && rule.ours_in_tests.contains(&name));
    }
    match rule.others {
        _ if !dependency.shipped => true,
        Others::Any => true,
        Others::Never(names) => !names.contains(&name),
        Others::Only(names) => names.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_with(name: &str, dependencies: &[(&str, bool, bool)]) -> Crate {
        let dependencies = dependencies.iter().map(|(name, ours, shipped)| Dependency {
            name: (*name).to_owned(),
            ours: *ours,
            shipped: *shipped,
        });
        Crate {
            name: name.to_owned(),
            licence: None,
            dependencies: dependencies.collect(),
        }
    }

    #[test]
    fn allows_what_the_table_allows() {
        let crates = [
            crate_with("weir-abi", &[("proptest", false, false)]),
            crate_with(
                "weir-datapath",
                &[("weir-abi", true, true), ("weir-datapath", true, false)],
            ),
            crate_with(
                "weir-agent",
                &[
                    ("weir-abi", true, true),
                    ("weir-testbed", true, false),
                    ("aya", false, true),
                ],
            ),
        ];
        assert_eq!(check(&crates), Vec::<Finding>::new());
    }

    #[test]
    fn names_every_edge_that_is_not_in_the_table() {
        let crates = [
            crate_with("weir-abi", &[("serde", false, true)]),
            crate_with(
                "weir-operator",
                &[("weir-abi", true, true), ("weir-policy", true, true)],
            ),
            crate_with(
                "weir-policy",
                &[("tokio", false, true), ("weir-datapath", true, false)],
            ),
            crate_with("weir-agent", &[("weir-testbed", true, true)]),
            crate_with("weir-new", &[]),
        ];
        let expected = [
            "weir-abi: must not depend on serde",
            "weir-operator: must not depend on weir-abi",
            "weir-policy: must not depend on tokio",
            "weir-policy: must not depend on weir-datapath",
            "weir-agent: must not depend on weir-testbed",
            "weir-new: not in the table of xtask/src/tidy/dependencies.rs",
        ];
        assert_eq!(check(&crates), expected);
    }
}
