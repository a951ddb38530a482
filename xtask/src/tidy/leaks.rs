//! What only this machine means does not belong in the tree: its paths, and the hosts it fetches packages from.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use super::sources::Source;
use crate::checkout::Checkout;

/// First folders of a path that say nothing about the machine.
const STANDARD: &[&str] = &[
    "home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "usr", "var",
];

/// What to look for; read from the machine, so that no list of it stands in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    paths: BTreeSet<String>,
    hosts: BTreeSet<String>,
}

impl Places {
    pub(super) fn of_this_machine(checkout: &Checkout) -> Self {
        let home = env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|home| home.parent().is_some());
        let roots = [
            Some(checkout.root().to_owned()),
            unusual_first_folder(checkout.root()),
            home,
        ];
        Self {
            paths: roots
                .into_iter()
                .flatten()
                .map(|path| path.display().to_string())
                .collect(),
            hosts: registry_hosts().collect(),
        }
    }
}

/// Every line that names a place of this machine.
pub(super) fn check(source: &Source, places: &Places) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let paths = places.paths.iter().filter(|path| names_path(line, path));
        let hosts = places.hosts.iter().filter(|host| line.contains(host.as_str()));
        findings.extend(
            paths
                .chain(hosts)
                .map(|place| format!("{}:{}: `{place}` is of this machine", source.path, number + 1)),
        );
    }
    findings
}

/// Whether the path stands in the line as a path: not as the middle or the beginning of another.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let joins = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        !before.is_some_and(|c| joins(c) || "}~*/".contains(c)) && !after.is_some_and(joins)
    })
}

/// The folder below `/` that holds the checkout, where it is one that no other machine need have.
fn unusual_first_folder(root: &Path) -> Option<PathBuf> {
    let first = root.components().nth(1)?.as_os_str().to_str()?;
    (!STANDARD.contains(&first)).then(|| Path::new("/").join(first))
}

/// Hosts in apt's sources, and those whose indices cargo keeps.
fn registry_hosts() -> impl Iterator<Item = String> {
    let apt = ["/etc/apt/sources.list".into()]
        .into_iter()
        .chain(files(Path::new("/etc/apt/sources.list.d")));
    let apt_hosts = apt
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| hosts_of_urls(&text));
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let indices = cargo_home
        .map(|home| files(&home.join("registry/index")))
        .unwrap_or_default();
    apt_hosts.chain(indices.into_iter().filter_map(|index| host_of_index(&index)))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    )
}

fn hosts_of_urls(text: &str) -> Vec<String> {
    text.split("://")
        .skip(1)
        .filter_map(|rest| rest.split(['/', ' ', '\n', ':']).next())
        .filter(|host| host.contains('.'))
        .map(str::to_owned)
        .collect()
}

/// Cargo names an index's folder after its host and a hash. Git hosts are for more than registries.
fn host_of_index(index: &Path) -> Option<String> {
    let (host, _) = index.file_name()?.to_str()?.rsplit_once('-')?;
    (host.contains('.') && host != "github.com").then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Finding> {
        let places = Places {
            paths: BTreeSet::from(["/srv/weir".to_owned(), "/users/ann".to_owned()]),
            hosts: BTreeSet::from(["mirror.example.org".to_owned()]),
        };
        check(
            &Source {
                path: "a.md".to_owned(),
                text: text.to_owned(),
            },
            &places,
        )
    }

    #[test]
    fn finds_paths_and_hosts_of_the_machine() {
        let text = "see /srv/weir/README\ncurl mirror.example.org\n\n(/users/ann)\n";
        let expected = [
            "a.md:1: `/srv/weir` is of this machine",
            "a.md:2: `mirror.example.org` is of this machine",
            "a.md:4: `/users/ann` is of this machine",
        ];
        assert_eq!(findings(text), expected);
    }

    #[test]
    fn leaves_other_paths_alone() {
        for text in [
            "/srv/weird",
            "/data/srv/weir",
            "$X/users/ann",
            "${X}/users/ann",
            "/users/annabel",
            "/users/",
        ] {
            assert_eq!(findings(text), Vec::<Finding>::new(), "{text}");
        }
    }

    #[test]
    fn takes_an_unusual_first_folder_for_the_machines_own() {
        assert_eq!(
            unusual_first_folder(Path::new("/volume7/weir")),
            Some(PathBuf::from("/volume7"))
        );
        assert_eq!(unusual_first_folder(Path::new("/tmp/weir")), None);
    }

    #[test]
    fn reads_hosts() {
        assert_eq!(
            hosts_of_urls("deb http://a.example/debian x\nURIs: https://b.example\n"),
            ["a.example", "b.example"]
        );
        assert_eq!(
            host_of_index(Path::new("index/c.example-1949cf8c")),
            Some("c.example".to_owned())
        );
        assert_eq!(host_of_index(Path::new("index/github.com-1ecc6299")), None);
    }
}
