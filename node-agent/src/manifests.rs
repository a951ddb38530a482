//! Objects from a directory of YAML files, where a cluster would have an API server.
//!
//! [`Manifests::load`] reads the directory; everything after the reading is pure:
//!
//! ```text
//! text ─ document ─ object ─ validate ─ claims ─ history ─ Objects
//! ```
//!
//! An object is refused where the API server would refuse it, unknown fields included: a typo in a policy must not
//! silently make it say something else. **Nothing opens because an object cannot be read**:
//!
//! - a version of it that was read before, in this run, stays in force;
//! - a policy that cannot be read when the agent starts closes the pods that it might be about
//!   ([`Objects::closed_namespaces`], [`Objects::closed_all`]), until its file is mended or removed;
//! - an object that comes later and cannot be read is not in force, just as if `kubectl apply` had refused it.
//!
//! An object that is in force stays the one that counts while its file has it: a duplicate takes nothing's place. Where
//! that is not known, at the start, copies of a policy that differ close the pods that it might be about, until one is
//! left; of other objects the first counts, by the names of the files and the place therein.

mod claims;
mod document;
mod history;
mod locate;
mod names;
mod object;
mod objects;
mod parse;
mod problem;
mod relations;
mod validate;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use object::{Kind, ObjectKey};
pub use objects::{LocalPod, NETNS_ANNOTATION, Objects, Origin};
pub use parse::{Parsed, parse};
pub use problem::{Effect, ManifestProblem, ProblemCode};

use history::{Collection, History};
use locate::Locator;

/// A directory of manifests, and what was read from it so far.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    /// By file name; parsed again only when the text is another.
    files: BTreeMap<String, (String, Parsed)>,
    /// The file of each object that is in force as a file says it, and its place among the file's entries.
    entries: BTreeMap<ObjectKey, (String, usize)>,
    locator: Locator,
    history: History,
}

impl Manifests {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            files: BTreeMap::new(),
            entries: BTreeMap::new(),
            locator: Locator::default(),
            history: History::default(),
        }
    }

    /// Reads the directory: `*.yaml` and `*.yml`, neither hidden files nor what is in further directories.
    ///
    /// What cannot be read becomes a problem, the directory itself included. The problems are in the order of the
    /// files.
    pub fn load(&mut self) -> (Objects, Vec<ManifestProblem>) {
        let mut unreadable = Vec::new();
        match read_directory(&self.directory) {
            Ok(texts) => {
                let names: BTreeSet<&String> = texts.iter().map(|(name, _)| name).collect();
                self.files.retain(|name, _| names.contains(name));
                for (name, text) in texts {
                    match text {
                        Ok(text) => self.set(name, text),
                        Err(error) => {
                            self.files.remove(&name);
                            unreadable.push(Parsed::unreadable(Some(name), &error));
                        }
                    }
                }
            }
            Err(error) => {
                self.files.clear();
                unreadable.push(Parsed::unreadable(None, &error));
            }
        }
        let parsed = self.files.values().map(|(_, parsed)| parsed).chain(&unreadable);
        let mut parsed: Vec<&Parsed> = parsed.collect();
        parsed.sort_by(|a, b| a.file.cmp(&b.file));
        let (objects, problems) = self.history.merge(&parsed);
        self.index(&objects);
        (Objects::new(objects, self.history.closed()), problems)
    }

    /// Where a field of an object stands in the files as they were last read; `None` where what is in force of the
    /// object is in none of them. `field` is like `spec.ports[0].port`.
    pub fn place(&self, object: &ObjectKey, field: &str) -> Option<Origin> {
        let (file, index) = self.entries.get(object)?;
        let (text, parsed) = self.files.get(file)?;
        let entry = parsed.entries.get(*index)?;
        let path = [entry.path.clone(), locate::path(field)].concat();
        let line = self
            .locator
            .line(text.get(entry.text.clone())?, &path)
            .map(|line| entry.first_line + line);
        Some(Origin {
            file: file.clone(),
            document: entry.document,
            line,
        })
    }

    fn index(&mut self, in_force: &Collection) {
        self.locator = Locator::default();
        self.entries.clear();
        for (file, (_, parsed)) in &self.files {
            for (i, entry) in parsed.entries.iter().enumerate() {
                let stands_here = in_force.get(&entry.key).is_some_and(|stored| {
                    (&stored.origin.file, stored.origin.document) == (file, entry.document)
                        && stored.object == entry.object
                });
                if stands_here {
                    self.entries
                        .entry(entry.key.clone())
                        .or_insert_with(|| (file.clone(), i));
                }
            }
        }
    }

    fn set(&mut self, name: String, text: String) {
        if self.files.get(&name).is_none_or(|(known, _)| *known != text) {
            let parsed = parse(&name, &text);
            self.files.insert(name, (text, parsed));
        }
    }
}

/// Reads a directory once, as [`Manifests`] does when the agent starts.
pub fn load(directory: &Path) -> (Objects, Vec<ManifestProblem>) {
    Manifests::new(directory).load()
}

/// Names and texts of the manifests, sorted by name.
fn read_directory(directory: &Path) -> io::Result<Vec<(String, io::Result<String>)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if is_manifest(&name) && !path.is_dir() {
            paths.push((name, path));
        }
    }
    paths.sort();
    Ok(paths
        .into_iter()
        .map(|(name, path)| (name, fs::read_to_string(path)))
        .collect())
}

fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension();
    !name.starts_with('.') && extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("written");
        }
    }

    fn names(objects: &Objects) -> Vec<String> {
        objects.origins.keys().map(ToString::to_string).collect()
    }

    fn texts(problems: &[ManifestProblem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    const POLICY: &str =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {}\n";
    const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n";

    #[test]
    fn the_samples_are_valid_and_say_what_the_demo_needs() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
        let (objects, problems) = load(&samples);
        assert_eq!(texts(&problems), Vec::<String>::new());
        assert_eq!(texts(&objects.problems("n1")), Vec::<String>::new());
        assert_eq!(weir_policy::lower(&objects.snapshot("n1")).problems, vec![]);
        assert_eq!(
            names(&objects),
            [
                "Pod default/foo",
                "Pod default/hello-web",
                "Pod default/other",
                "Service default/hello-web",
                "EndpointSlice default/hello-web-ipv4",
                "EndpointSlice default/hello-web-ipv6",
                "NetworkPolicy default/hello-web-allow-from-foo",
                "ClusterNetworkPolicy quarantine",
                "FlowLogPolicy everything",
            ]
        );
        let pods: Vec<String> = objects
            .local_pods("n1")
            .iter()
            .map(|pod| format!("{} {} {:?}", pod.id, pod.netns.display(), pod.addresses))
            .collect();
        assert_eq!(
            pods,
            [
                "default/foo /run/netns/weir-demo-foo [10.244.1.11, fd00:10:244:1::11]",
                "default/hello-web /run/netns/weir-demo-hello-web [10.244.1.13, fd00:10:244:1::13]",
                "default/other /run/netns/weir-demo-other [10.244.1.12, fd00:10:244:1::12]",
            ]
        );
        let services: Vec<String> = objects
            .service_ports()
            .iter()
            .map(|port| {
                format!(
                    "{} {}:{} {:?}",
                    port.protocol, port.address, port.port, port.backends
                )
            })
            .collect();
        assert_eq!(
            services,
            [
                "6 10.96.10.80:80 [(10.244.1.13, 8080)]",
                "6 fd00:10:96::80:80 [(fd00:10:244:1::13, 8080)]"
            ]
        );
    }

    #[test]
    fn only_manifests_are_read_and_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = [
            "b.yaml",
            "a.yml",
            ".hidden.yaml",
            "c.yaml~",
            "d.txt",
            "#e.yaml#",
            ".a.yaml.swp",
            "yaml",
        ];
        write(directory.path(), &files.map(|name| (name, NODE)));
        fs::create_dir(directory.path().join("f.yaml")).expect("created");
        let (objects, problems) = load(directory.path());
        let origin = Origin {
            file: "a.yml".to_owned(),
            document: 1,
            line: Some(1),
        };
        assert_eq!(
            objects.origins,
            BTreeMap::from([(ObjectKey::new(Kind::Node, "", "n"), origin)])
        );
        assert_eq!(
            texts(&problems),
            [
                "b.yaml:1: document 1: Node n: metadata.name: it is in a.yml:1 already, which is the one that counts; \
              nothing of it is in force (Duplicate)"
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_closes_and_a_directory_that_goes_changes_nothing() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("manifests");
        let mut manifests = Manifests::new(&directory);
        let missing = "the directory of manifests: it cannot be read: No such file or directory (os error 2)";
        let (objects, problems) = manifests.load();
        assert!(objects.closed_all);
        assert_eq!(
            texts(&problems),
            [format!(
                "{missing}; all pods are closed until this is mended (Unreadable)"
            )]
        );

        fs::create_dir(&directory).expect("created");
        write(&directory, &[("a.yaml", POLICY)]);
        let (objects, problems) = manifests.load();
        assert_eq!(
            (objects.closed_all, names(&objects)),
            (false, vec!["NetworkPolicy default/p".to_owned()])
        );
        assert_eq!(texts(&problems), Vec::<String>::new());

        fs::rename(&directory, parent.path().join("elsewhere")).expect("renamed");
        let (kept, problems) = manifests.load();
        assert_eq!(kept, objects);
        assert_eq!(
            texts(&problems),
            [format!(
                "{missing}; the version that was read before stays in force (Unreadable)"
            )]
        );
    }

    #[test]
    fn a_file_that_is_no_text_is_a_problem_and_the_others_count() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &[("b.yaml", NODE)]);
        fs::write(directory.path().join("a.yaml"), b"kind: \xff").expect("written");
        let (objects, problems) = load(directory.path());
        assert_eq!(
            (objects.closed_all, names(&objects)),
            (true, vec!["Node n".to_owned()])
        );
        assert_eq!(
            texts(&problems),
            [
                "a.yaml: it cannot be read: stream did not contain valid UTF-8; all pods are closed until this is mended \
              (Unreadable)"
            ]
        );
    }

    #[test]
    fn an_edit_that_breaks_a_policy_leaves_the_one_before_in_force() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &[("a.yaml", POLICY), ("b.yaml", NODE)]);
        let mut manifests = Manifests::new(directory.path());
        let (before, problems) = manifests.load();
        assert_eq!(problems, vec![]);
        let broken = POLICY.replace("spec: {}", "spec: {podSelctor: {}}");
        write(
            directory.path(),
            &[("a.yaml", &broken), ("b.yaml", &format!("{NODE}---\nx: [\n"))],
        );
        let (after, problems) = manifests.load();
        assert_eq!(after, before);
        assert_eq!(
            texts(&problems),
            [
                "a.yaml:4: document 1: NetworkPolicy default/p: spec.podSelctor: NetworkPolicy has no such field; the \
                 version that was read before stays in force (UnknownField)",
                "b.yaml:7: document 2: did not find expected node content, while parsing a flow node; nothing of it \
                 is in force (MalformedYaml)",
            ]
        );
        fs::remove_file(directory.path().join("a.yaml")).expect("removed");
        assert_eq!(names(&manifests.load().0), ["Node n"]);
    }

    #[test]
    fn the_place_of_a_field_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let list = "# a list\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    \
                    name: s\n  spec:\n    ports:\n    - port: 80\n";
        write(directory.path(), &[("a.yaml", &format!("{NODE}---\n{list}"))]);
        let mut manifests = Manifests::new(directory.path());
        assert_eq!(manifests.load().1, vec![]);
        let service = ObjectKey::new(Kind::Service, "default", "s");
        assert_eq!(
            manifests.place(&service, "spec.ports[0].port"),
            Some(Origin {
                file: "a.yaml".to_owned(),
                document: 2,
                line: Some(16)
            })
        );
        assert_eq!(
            manifests.place(&ObjectKey::new(Kind::Node, "", "other"), ""),
            None
        );

        // What is in force is where it was, and not in a copy of another mind.
        write(
            directory.path(),
            &[("0.yaml", &format!("{NODE}  labels: {{a: b}}\n"))],
        );
        let place = |manifests: &mut Manifests| {
            manifests.load();
            let origin = manifests.place(&ObjectKey::new(Kind::Node, "", "n"), "metadata.name");
            origin.map(|origin| origin.to_string())
        };
        assert_eq!(place(&mut manifests), Some("a.yaml:4".to_owned()));
        write(directory.path(), &[("a.yaml", "{")]);
        assert_eq!(place(&mut manifests), None);
    }
}
