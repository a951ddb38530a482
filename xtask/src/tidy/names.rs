//! Files are named after their one job, and are short enough to have one.

use super::Finding;
use super::sources::Source;

/// Words that say that nobody knew what the file is for.
const EMPTY_WORDS: &[&str] = &["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// Lines of a Rust file, tests included.
const LONGEST: usize = 800;

/// A Rust file's name, and the names of the folders on its way.
pub(super) fn check(path: &str) -> Vec<Finding> {
    let Some(stem) = path.strip_suffix(".rs") else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for part in stem.split('/') {
        for word in part.split(['_', '-']).filter(|word| EMPTY_WORDS.contains(word)) {
            findings.push(format!("{path}: `{word}` names no job"));
        }
    }
    // Below tests/ a file beside its folder would be a test program of its own.
    let is_mod = stem == "mod" || stem.ends_with("/mod");
    if is_mod && !stem.split('/').any(|part| part == "tests") {
        findings.push(format!(
            "{path}: a module's file stands beside its folder and bears its name"
        ));
    }
    findings
}

pub(super) fn check_length(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (source.path.ends_with(".rs") && lines > LONGEST)
        .then(|| format!("{}: {lines} lines, more than {LONGEST}", source.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_without_a_job() {
        assert_eq!(check("node-agent/src/sync.rs"), Vec::<Finding>::new());
        assert_eq!(check("node-agent/tests/bed/mod.rs"), Vec::<Finding>::new());
        assert_eq!(check("docs/common.md"), Vec::<Finding>::new());
        assert_eq!(check("crates/api/src/commonly.rs"), Vec::<Finding>::new());
        assert_eq!(
            check("operator/src/gateway_utils.rs"),
            ["operator/src/gateway_utils.rs: `utils` names no job"]
        );
        assert_eq!(
            check("node-agent/src/helpers/mod.rs"),
            [
                "node-agent/src/helpers/mod.rs: `helpers` names no job",
                "node-agent/src/helpers/mod.rs: a module's file stands beside its folder and bears its name",
            ]
        );
    }

    #[test]
    fn measures_rust_files_only() {
        let source = |path: &str, lines: usize| Source {
            path: path.to_owned(),
            text: "x\n".repeat(lines),
        };
        assert_eq!(check_length(&source("a.rs", LONGEST)), None);
        assert_eq!(check_length(&source("a.md", LONGEST + 1)), None);
        assert_eq!(
            check_length(&source("a.rs", LONGEST + 1)),
            Some("a.rs: 801 lines, more than 800".to_owned())
        );
    }
}
