//! A file's text → its YAML documents, each parsed on its own so that one that is malformed spoils no other.

use std::ops::Range;

use serde::Deserialize;
use serde_yaml_ng::Value;

/// A YAML document of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document<'a> {
    /// Place in the file, from 1. Documents of nothing but comments do not count.
    pub number: usize,
    /// Line in the file of the text's first line, from 0.
    pub first_line: usize,
    pub text: &'a str,
    /// Of the text in the file, in bytes.
    pub range: Range<usize>,
    pub content: Result<Value, Malformed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// In the file, from 1.
    pub line: Option<usize>,
    pub message: String,
}

/// Splits a text at the lines that start a document.
pub(crate) fn documents(file: &str) -> Vec<Document<'_>> {
    let mut documents: Vec<Document<'_>> = Vec::new();
    for (first_line, range) in split(file) {
        let text = &file[range.clone()];
        let content = read(text).map_err(|error| malformed(&error, first_line));
        if !matches!(content, Ok(Value::Null)) {
            let number = documents.len() + 1;
            documents.push(Document {
                number,
                first_line,
                text,
                range,
                content,
            });
        }
    }
    documents
}

/// A line that begins with `---` starts a document wherever it stands (YAML 1.2.2, 9.1.2).
fn split(text: &str) -> Vec<(usize, Range<usize>)> {
    let mut parts = Vec::new();
    let (mut part_start, mut part_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if starts_document(line) && offset > part_start {
            parts.push((part_line, part_start..offset));
            (part_start, part_line) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((part_line, part_start..text.len()));
    parts
}

fn starts_document(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn read(text: &str) -> serde_yaml_ng::Result<Value> {
    if text
        .lines()
        .all(|line| line.trim_start().starts_with('#') || line.trim().is_empty())
    {
        return Ok(Value::Null);
    }
    let mut value = Value::deserialize(serde_yaml_ng::Deserializer::from_str(text))?;
    value.apply_merge()?;
    Ok(value)
}

/// The library writes places into its message too, counted from the document's start.
fn malformed(error: &serde_yaml_ng::Error, first_line: usize) -> Malformed {
    let location = error.location();
    let mut message = error.to_string();
    if let Some(location) = &location {
        let place = format!(" at line {} column {}", location.line(), location.column());
        message = message.replacen(&place, "", 1);
    }
    Malformed {
        line: location.map(|location| first_line + location.line()),
        message: count_lines_from(first_line, &message),
    }
}

/// Adds to every line number in a message.
fn count_lines_from(first_line: usize, message: &str) -> String {
    let mut parts = message.split(" line ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        match number.parse::<usize>() {
            Ok(number) => text += &format!(" line {}{rest}", number.saturating_add(first_line)),
            Err(_) => text.extend([" line ", part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Vec<(usize, usize, Result<String, Malformed>)> {
        documents(text)
            .into_iter()
            .map(|document| {
                let content = document
                    .content
                    .map(|value| serde_json::to_string(&value).expect("a plain value"));
                (document.number, document.first_line, content)
            })
            .collect()
    }

    fn ok(text: &str) -> Result<String, Malformed> {
        Ok(text.to_owned())
    }

    #[test]
    fn documents_are_counted_and_empty_ones_are_not() {
        let text = "# a header\n---\n# only words\n---\na: 1\n--- # next\nb: |\n  ---\n  text\n---\n\n---\n{c: 2}\n...\n";
        assert_eq!(
            summary(text),
            [
                (1, 3, ok(r#"{"a":1}"#)),
                (2, 5, ok(r#"{"b":"---\ntext\n"}"#)),
                (3, 11, ok(r#"{"c":2}"#))
            ]
        );
        assert_eq!(summary(""), []);
        assert_eq!(
            summary("a: 1\r\n---\r\nb: 2"),
            [(1, 0, ok(r#"{"a":1}"#)), (2, 1, ok(r#"{"b":2}"#))]
        );
        assert_eq!(summary("\u{feff}a: 1\n"), [(1, 0, ok(r#"{"a":1}"#))]);
    }

    #[test]
    fn a_malformed_document_spoils_no_other() {
        let malformed = |line, message: &str| {
            Err(Malformed {
                line: Some(line),
                message: message.to_owned(),
            })
        };
        assert_eq!(
            summary("a: 1\n---\nx: 1\nb: [1, 2\nc: 3\n---\nd: 4\n"),
            [
                (1, 0, ok(r#"{"a":1}"#)),
                (
                    2,
                    1,
                    malformed(
                        5,
                        "did not find expected ',' or ']', while parsing a flow sequence at line 4 column 4"
                    )
                ),
                (3, 5, ok(r#"{"d":4}"#)),
            ]
        );
        assert_eq!(
            summary("a: 1\nb: 1\na: 2\n"),
            [(1, 0, malformed(1, "duplicate entry with key \"a\""))]
        );
    }

    #[test]
    fn merge_keys_are_merged_and_a_bomb_does_not_go_off() {
        assert_eq!(
            summary("a: &x {p: 1}\nb: {<<: *x, q: 2}\n"),
            [(1, 0, ok(r#"{"a":{"p":1},"b":{"q":2,"p":1}}"#))]
        );
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let references = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{references}]\n");
        }
        assert!(matches!(&summary(&bomb)[..], [(1, 0, Err(_))]));
        let deep = "[".repeat(100_000);
        assert!(matches!(&summary(&deep)[..], [(1, 0, Err(_))]));
    }
}
