//! The main module from which a module's programs are built.
//!
//! `go build MODULE@VERSION` does not work for modules with `replace` directives, which a program's own module has
//! and its users do not get. So we make a module that requires it with the very versions that it requires itself.
//! Replacements by folders of its repository, which the published form lacks, become replacements by the modules
//! published from those folders.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::recipes::Module;

/// What `go.mod` of a published module says (<https://go.dev/ref/mod#go-mod-file>).
#[derive(Debug, Default, PartialEq, Eq)]
struct GoMod {
    go: String,
    /// `KEY=VALUE`.
    godebug: Vec<String>,
    require: BTreeMap<String, String>,
    /// Paths that are replaced by folders of the same repository.
    replaced_by_folder: Vec<String>,
}

/// The text of `go.mod` for building programs of a module, whose own `go.mod` is given.
///
/// # Errors
/// The module's `go.mod` says something that is not carried over; the error cites it.
pub fn go_mod(module: &Module, own: &str) -> Result<String> {
    let own = parse(own)?;
    let version_of = |path: &str| {
        match own.require.get(path).map(String::as_str) {
            None | Some("v0.0.0") => module.replaced_version,
            Some(version) => version,
        }
        .to_owned()
    };
    let mut text = format!("module weir.invalid/{}\n\ngo {}\n", module.name, own.go);
    for setting in &own.godebug {
        line(&mut text, format_args!("godebug {setting}"));
    }
    line(
        &mut text,
        format_args!("\nrequire (\n\t{} {}", module.path, module.version),
    );
    for path in own.require.keys() {
        line(&mut text, format_args!("\t{path} {}", version_of(path)));
    }
    line(&mut text, format_args!(")"));
    for path in &own.replaced_by_folder {
        line(
            &mut text,
            format_args!("replace {path} => {path} {}", version_of(path)),
        );
    }
    Ok(text)
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
}

fn parse(text: &str) -> Result<GoMod> {
    let mut parsed = GoMod::default();
    let mut block = None;
    for line in text.lines() {
        let words: Vec<&str> = line
            .split("//")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        match (block, words.as_slice()) {
            (_, []) => {}
            (Some(_), [")"]) => block = None,
            (None, [directive, "("]) => block = Some(*directive),
            (Some(directive), arguments) => parsed.take(directive, arguments)?,
            (None, [directive, arguments @ ..]) => parsed.take(directive, arguments)?,
        }
    }
    Ok(parsed)
}

impl GoMod {
    fn take(&mut self, directive: &str, arguments: &[&str]) -> Result<()> {
        match (directive, arguments) {
            // Which toolchain its authors use, and which versions they withdrew, does not bind us.
            ("module" | "toolchain" | "retract" | "tool" | "ignore", _) => {}
            ("go", [version]) => (*version).clone_into(&mut self.go),
            ("godebug", [setting]) => self.godebug.push((*setting).to_owned()),
            ("require", [path, version]) => {
                self.require.insert((*path).to_owned(), (*version).to_owned());
            }
            ("replace", [path, "=>", folder]) if folder.starts_with('.') => {
                self.replaced_by_folder.push((*path).to_owned());
            }
            _ => bail!("go.mod: `{directive} {}` is not understood", arguments.join(" ")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Module = Module {
        name: "ship",
        path: "example.org/ship",
        version: "v1.37.2",
        sum: "h1:x",
        replaced_version: "v0.37.2",
    };

    #[test]
    fn folders_become_published_modules() {
        let own = "module example.org/ship\n\
            go 1.26.0\n\
            toolchain go1.26.10\n\
            godebug default=go1.26\n\
            require (\n\
            \texample.org/sail v0.0.0\n\
            \texample.org/oar v1.2.3 // indirect\n\
            )\n\
            require example.org/mast v3.7.3\n\
            replace (\n\
            \texample.org/sail => ./staging/sail\n\
            \texample.org/mast => ../mast\n\
            \texample.org/unrequired => ./staging/unrequired\n\
            )\n";
        let expected = "module weir.invalid/ship\n\
            \n\
            go 1.26.0\n\
            godebug default=go1.26\n\
            \n\
            require (\n\
            \texample.org/ship v1.37.2\n\
            \texample.org/mast v3.7.3\n\
            \texample.org/oar v1.2.3\n\
            \texample.org/sail v0.37.2\n\
            )\n\
            replace example.org/sail => example.org/sail v0.37.2\n\
            replace example.org/mast => example.org/mast v3.7.3\n\
            replace example.org/unrequired => example.org/unrequired v0.37.2\n";
        assert_eq!(go_mod(&MODULE, own).expect("understood"), expected);
    }

    #[test]
    fn what_would_change_the_build_is_not_passed_over() {
        let own = "go 1.26\nreplace example.org/oar => example.org/fork v1.0.0\n";
        let error = go_mod(&MODULE, own).expect_err("a replacement by another module");
        assert_eq!(
            error.to_string(),
            "go.mod: `replace example.org/oar => example.org/fork v1.0.0` is not understood"
        );
    }
}
