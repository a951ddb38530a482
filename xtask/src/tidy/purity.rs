//! Code that thinks does not wait: no `.await`, no clock, no lock and no IO under `crates/`.

use super::Finding;
use super::rust_text::code_only;
use super::sources::Source;

const WHERE: &str = "crates/";

/// Paths and methods, as they are written.
const BANNED_TEXT: &[&str] = &[".await", "std::time", "std::fs", "std::process", "std::thread"];

/// Types, as words.
const BANNED_WORDS: &[&str] = &[
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    // Tests of their own may measure and read cases; what is compiled into others may not.
    let thinks =
        source.path.starts_with(WHERE) && source.path.contains("/src/") && source.path.ends_with(".rs");
    if !thinks {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in code_only(&source.text).lines().enumerate() {
        let found = BANNED_TEXT.iter().filter(|text| line.contains(**text)).chain(
            BANNED_WORDS
                .iter()
                .filter(|word| words(line).any(|other| other == **word)),
        );
        findings.extend(found.map(|what| {
            format!(
                "{}:{}: `{what}`: code under {WHERE} does not wait, lock, or ask the time",
                source.path,
                number + 1
            )
        }));
    }
    findings
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn finds_waiting_in_code_only() {
        let text = "//! Never a Mutex.\nlet x = f().await;\nlet word = \"Instant\";\nfn Instantiate() {}\nuse std::time::Instant;\n";
        let expected = [
            "crates/policy/src/lower.rs:2: `.await`: code under crates/ does not wait, lock, or ask the time",
            "crates/policy/src/lower.rs:5: `std::time`: code under crates/ does not wait, lock, or ask the time",
            "crates/policy/src/lower.rs:5: `Instant`: code under crates/ does not wait, lock, or ask the time",
        ];
        assert_eq!(check(&source("crates/policy/src/lower.rs", text)), expected);
    }

    #[test]
    fn leaves_other_folders_alone() {
        assert_eq!(
            check(&source("node-agent/src/run.rs", "f().await")),
            Vec::<Finding>::new()
        );
        assert_eq!(
            check(&source("crates/policy/tests/time.rs", "Instant::now()")),
            Vec::<Finding>::new()
        );
    }
}
