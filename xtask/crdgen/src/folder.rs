//! A folder of definitions on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What kustomize reads in a folder beside the definitions.
const KUSTOMIZATION: &str = "kustomization.yaml";

/// Makes the definitions of the folder be these.
pub(crate) fn write(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for path in superfluous(folder, files)? {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// A line for each file of the folder that [`write`] would change.
pub(crate) fn differences(folder: &Path, files: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        if !path.exists() {
            lines.push(format!("{}: is missing", path.display()));
            continue;
        }
        let found = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if let Some(line) = first_difference(&found, text) {
            lines.push(format!("{}:{line}: differs", path.display()));
        }
    }
    for path in superfluous(folder, files)? {
        lines.push(format!("{}: defines no kind of crates/api", path.display()));
    }
    Ok(lines)
}

/// The number of the first line in which two texts differ.
fn first_difference(found: &str, expected: &str) -> Option<usize> {
    if found == expected {
        return None;
    }
    let equal = found
        .split('\n')
        .zip(expected.split('\n'))
        .take_while(|(found, expected)| found == expected)
        .count();
    Some(equal + 1)
}

fn superfluous(folder: &Path, files: &BTreeMap<String, String>) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    if !folder.is_dir() {
        return Ok(paths);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") && name != KUSTOMIZATION && !files.contains_key(&name) {
            paths.insert(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn what_was_written_does_not_differ() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("crds");
        let wanted = files(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
        write(&folder, &wanted).expect("written");
        assert_eq!(differences(&folder, &wanted).expect("read"), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named_and_writing_ends_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path();
        let old = files(&[("a.yaml", "a: 1\nx: 1\n"), ("old.yaml", "o: 1\n")]);
        write(folder, &old).expect("written");
        fs::write(folder.join(KUSTOMIZATION), "resources: []\n").expect("written");
        let wanted = files(&[("a.yaml", "a: 1\nx: 2\n"), ("new.yaml", "n: 1\n")]);
        let path = |name: &str| folder.join(name).display().to_string();
        let expected = [
            format!("{}:2: differs", path("a.yaml")),
            format!("{}: is missing", path("new.yaml")),
            format!("{}: defines no kind of crates/api", path("old.yaml")),
        ];
        assert_eq!(differences(folder, &wanted).expect("read"), expected);
        write(folder, &wanted).expect("written");
        assert_eq!(differences(folder, &wanted).expect("read"), Vec::<String>::new());
        assert!(folder.join(KUSTOMIZATION).exists());
    }
}
