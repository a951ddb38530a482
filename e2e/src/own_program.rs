//! Finding `weir-e2e`, which starts itself anew inside namespaces, also when its library is in a test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const NAME: &str = "weir-e2e";

/// The running program if it is `weir-e2e`, or the one that was built beside it.
///
/// # Errors
/// There is none.
pub(crate) fn own_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding the running program")?;
    candidates(&this)
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no {NAME} beside {}: `cargo build -p {NAME}`", this.display()))
}

/// A program is in `target/PROFILE`, a test in `target/PROFILE/deps`.
fn candidates(this: &Path) -> impl Iterator<Item = PathBuf> {
    this.ancestors().skip(1).take(2).map(|folder| folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_program_and_above_a_test() {
        let expected = ["/t/debug/deps/weir-e2e", "/t/debug/weir-e2e"].map(PathBuf::from);
        assert_eq!(
            candidates(Path::new("/t/debug/deps/x-1")).collect::<Vec<_>>(),
            expected
        );
        let first = candidates(Path::new("/t/debug/x")).next();
        assert_eq!(first, Some(PathBuf::from("/t/debug/weir-e2e")));
    }
}
