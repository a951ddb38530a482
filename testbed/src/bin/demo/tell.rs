//! How the demo speaks.

use std::io::IsTerminal;

/// Begins a chapter.
pub(crate) fn chapter(title: &str) {
    println!("\n{}", style("1", title));
}

/// A sentence in between.
pub(crate) fn say(text: &str) {
    println!("  {text}");
}

/// Something that was to be, and is.
pub(crate) fn check(text: &str) {
    println!("  {} {text}", style("32", "✓"));
}

/// Text as it stands in a file.
pub(crate) fn quote(text: &str) {
    text.lines()
        .for_each(|line| println!("      {}", style("2", line)));
}

/// Something that was to be, and is not.
pub(crate) fn failed(error: &anyhow::Error) {
    println!("\n  {} {error:#}", style("31", "✗"));
}

fn style(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.into()
    }
}
