//! Which specs are run, and why others are not. Everything is decided by the names, in which upstream writes what a
//! spec is about and what it needs.

use std::collections::{BTreeMap, BTreeSet};

/// Specs that are run together.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub name: &'static str,
    /// A spec's name holds each of these texts...
    pub all_of: &'static [&'static str],
    /// ...and one of these.
    pub one_of: &'static [&'static str],
    pub exclusions: &'static [Exclusion],
}

/// Specs of a group that are not run.
#[derive(Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// Their names hold this text.
    pub text: &'static str,
    pub why: &'static str,
}

const SCTP: Exclusion = Exclusion {
    text: "[Feature:SCTPConnectivity]",
    why: "needs SCTP sockets, which the kernel may be built without",
};

const fn exclusion(text: &'static str, why: &'static str) -> Exclusion {
    Exclusion { text, why }
}

/// Of no concern to a dataplane: nothing is sent.
const API_ONLY: &str = "asks the API server and its controllers only";

const SERVICES: &str = "is about Services, not about the pod network";

/// NetworkPolicy.
pub const NETPOL: Group = Group {
    name: "netpol",
    all_of: &[],
    one_of: &["[sig-network] Netpol"],
    exclusions: &[SCTP],
};

/// From pod to pod, and from node to pod.
pub const NETWORK: Group = Group {
    name: "network",
    all_of: &[],
    one_of: &[
        "[sig-network] Connectivity Pod Lifecycle",
        "[sig-network] HostPort",
        "[sig-network] Networking Granular Checks: Pods",
        "[sig-network] NoSNAT",
    ],
    exclusions: &[SCTP, exclusion("using Services", SERVICES)],
};

/// What a conformant cluster passes, of the pod network.
pub const CONFORMANCE: Group = Group {
    name: "conformance",
    all_of: &["[sig-network]", "[Conformance]"],
    one_of: &[""],
    exclusions: &[
        SCTP,
        exclusion("[sig-network] API Server", API_ONLY),
        exclusion("[sig-network] EndpointSlice should support a Service", SERVICES),
        exclusion("[sig-network] EndpointSlice", API_ONLY),
        exclusion("[sig-network] Endpoints", API_ONLY),
        exclusion("[sig-network] Ingress", API_ONLY),
        exclusion("[sig-network] ServiceCIDR", API_ONLY),
        exclusion("[sig-network] DNS", SERVICES),
        exclusion("[sig-network] Service endpoints latency", SERVICES),
        exclusion("[sig-network] Services", SERVICES),
    ],
};

impl Group {
    fn includes(&self, name: &str) -> bool {
        self.all_of.iter().all(|text| name.contains(text))
            && self.one_of.iter().any(|text| name.contains(text))
    }
}

/// The names that `e2e.test --list-tests` prints. Each stands on a line of its own, after a file and the number of a
/// line in it.
pub(super) fn listed(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| {
            let (place, name) = line.strip_prefix("    ")?.split_once(": ")?;
            place.contains(".go:").then_some(name)
        })
        .collect()
}

/// A group's specs, by what is to become of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) chosen: BTreeSet<String>,
    /// Each with why.
    pub(super) excluded: BTreeMap<String, &'static str>,
}

impl Selection {
    /// Of these names, those of the group which also hold a text of `focus`.
    pub(super) fn of(names: &[&str], group: &Group, focus: &[String]) -> Self {
        let mut selection = Self::default();
        let in_focus = |name: &str| focus.is_empty() || focus.iter().any(|text| name.contains(text.as_str()));
        for name in names.iter().filter(|name| group.includes(name) && in_focus(name)) {
            match group
                .exclusions
                .iter()
                .find(|exclusion| name.contains(exclusion.text))
            {
                Some(exclusion) => {
                    selection.excluded.insert((*name).to_owned(), exclusion.why);
                }
                None => {
                    selection.chosen.insert((*name).to_owned());
                }
            }
        }
        selection
    }

    /// Arguments by which ginkgo runs exactly what is chosen.
    pub(super) fn focuses(&self) -> impl Iterator<Item = String> {
        self.chosen
            .iter()
            .map(|name| format!("--focus={}$", literal(name)))
    }
}

/// A regular expression of Go that matches nothing but this text.
fn literal(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
The following spec names can be used with 'ginkgo run --focus/skip':
    k8s.io/kubernetes@v1.37.2/test/e2e/network/netpol/network_policy.go:80: [sig-network] Netpol allows: a
    k8s.io/kubernetes@v1.37.2/test/e2e/network/netpol/network_policy.go:90: [sig-network] Netpol [Feature:SCTPConnectivity] b
    k8s.io/kubernetes@v1.37.2/test/e2e/network/hostport.go:63: [sig-network] HostPort c [Conformance]
    k8s.io/kubernetes@v1.37.2/test/e2e/apps/job.go:1: [sig-apps] Job speaks of [sig-network] Netpol
";

    fn chosen(names: &[&str], group: &Group, focus: &[&str]) -> Selection {
        let focus: Vec<String> = focus.iter().map(|text| (*text).to_owned()).collect();
        Selection::of(names, group, &focus)
    }

    fn selection(chosen: &[&str], excluded: &[(&str, &'static str)]) -> Selection {
        Selection {
            chosen: chosen.iter().map(|name| (*name).to_owned()).collect(),
            excluded: excluded
                .iter()
                .map(|(name, why)| ((*name).to_owned(), *why))
                .collect(),
        }
    }

    #[test]
    fn reads_the_names_of_all_specs() {
        assert_eq!(
            listed(LIST),
            [
                "[sig-network] Netpol allows: a",
                "[sig-network] Netpol [Feature:SCTPConnectivity] b",
                "[sig-network] HostPort c [Conformance]",
                "[sig-apps] Job speaks of [sig-network] Netpol",
            ]
        );
    }

    #[test]
    fn a_group_is_chosen_by_name_and_says_what_it_leaves_out() {
        let names = &listed(LIST)[..3];
        let sctp = ("[sig-network] Netpol [Feature:SCTPConnectivity] b", SCTP.why);
        assert_eq!(
            chosen(names, &NETPOL, &[]),
            selection(&["[sig-network] Netpol allows: a"], &[sctp])
        );
        assert_eq!(chosen(names, &NETPOL, &["other", "] b"]), selection(&[], &[sctp]));
        assert_eq!(
            chosen(names, &CONFORMANCE, &[]),
            selection(&["[sig-network] HostPort c [Conformance]"], &[])
        );
        assert_eq!(
            chosen(&["[sig-network] Services d [Conformance]"], &CONFORMANCE, &[]),
            selection(&[], &[("[sig-network] Services d [Conformance]", SERVICES)])
        );
    }

    #[test]
    fn policies_that_name_sctp_need_no_sctp_sockets() {
        let name = "[sig-network] Netpol should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if \
                    the plugin doesn't support SCTP [Feature:NetworkPolicy]";
        assert_eq!(chosen(&[name], &NETPOL, &[]), selection(&[name], &[]));
    }

    #[test]
    fn ginkgo_is_told_the_exact_names() {
        let names = selection(&["[sig-network] a (b) c.d", "e's"], &[]);
        assert_eq!(
            names.focuses().collect::<Vec<_>>(),
            [r"--focus=\[sig-network\] a \(b\) c\.d$", "--focus=e's$"]
        );
    }
}
