//! Where in a text a field stands.
//!
//! The field is sought by reading the document once more and failing at it: the YAML library knows the place of a
//! failure, and nothing else of a place.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Segment {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Writes a path as `spec.ports[0].port`.
pub(crate) fn field(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => text.extend([".", key]),
            Segment::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

/// Reads what [`field`] writes, and keys in brackets, dots and all: `metadata.labels[example.org/a]`.
pub(crate) fn path(field: &str) -> Vec<Segment> {
    let mut path = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let brackets = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'));
        if let Some((inside, after)) = brackets {
            path.push(
                inside
                    .parse()
                    .map_or_else(|_| Segment::from(inside), Segment::Index),
            );
            rest = after;
        } else {
            let key = rest.strip_prefix('.').unwrap_or(rest);
            let end = key.find(['.', '[']).filter(|&end| end > 0).unwrap_or(key.len());
            path.push(Segment::from(&key[..end]));
            rest = &key[end..];
        }
    }
    path
}

/// Finds lines as long as it is not too much work: each search reads the whole document, and one with a hundred
/// thousand faults would otherwise be read as often.
#[derive(Debug)]
pub(crate) struct Locator {
    /// In bytes.
    work_left: Cell<usize>,
}

impl Default for Locator {
    fn default() -> Self {
        Self {
            work_left: Cell::new(8 << 20),
        }
    }
}

impl Locator {
    /// The line of a field in a document, from 1; that of the nearest thing around it where it is not there itself.
    /// Without the means to search it is the line where the document's content begins.
    pub(crate) fn line(&self, text: &str, path: &[Segment]) -> Option<usize> {
        (1..=path.len())
            .rev()
            .find_map(|depth| self.search(text, &path[..depth]))
            .or_else(|| first_line(text))
    }

    fn search(&self, text: &str, path: &[Segment]) -> Option<usize> {
        self.work_left.set(self.work_left.get().checked_sub(text.len())?);
        let deserializer = serde_yaml_ng::Deserializer::from_str(text);
        Seek(path)
            .deserialize(deserializer)
            .err()?
            .location()
            .map(|location| location.line())
    }
}

/// The first line that is neither empty, nor a comment, nor the mark of a document.
pub(crate) fn first_line(text: &str) -> Option<usize> {
    let content = |line: &str| {
        let line = line.trim_start_matches("---").trim_start();
        !line.is_empty() && !line.starts_with('#')
    };
    text.lines().position(content).map(|index| index + 1)
}

struct Seek<'p>(&'p [Segment]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            // Nothing but the visitor's refusal is left to say where the value stands.
            deserializer.deserialize_any(Refuse)
        } else {
            deserializer.deserialize_any(Step(self.0))
        }
    }
}

struct Refuse;

impl Visitor<'_> for Refuse {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

struct Step<'p>(&'p [Segment]);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let wanted = match &self.0[0] {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        };
        let rest = &self.0[1..];
        while let Some(found) = map.next_key_seed(Key {
            wanted,
            last: rest.is_empty(),
        })? {
            if found {
                map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if let Segment::Index(index) = self.0[0] {
            for _ in 0..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            seq.next_element_seed(Seek(&self.0[1..]))?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Says whether a key is the wanted one; refuses it if it is and the path ends with it.
struct Key<'p> {
    wanted: Option<&'p str>,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match self.wanted {
            Some(wanted) if wanted == key && self.last => Err(E::custom("here")),
            wanted => Ok(wanted == Some(key)),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_and_read() {
        for text in ["spec.ports[0].port", "items[3].spec", "spec", "a[1][2].b"] {
            assert_eq!(field(&path(text)), text);
        }
        assert_eq!(path(""), []);
        let key = |key: &str| Segment::Key(key.to_owned());
        assert_eq!(
            path("a[example.org/b].c"),
            [key("a"), key("example.org/b"), key("c")]
        );
        assert_eq!(path("a[b.c"), [key("a"), key("[b.c")]);
    }

    #[test]
    fn fields_are_found_in_every_style() {
        let text = "\
# words
spec:
  # more words
  ports:
  - name: a
    port: 1
  - {name: b,
     port: 2}
  - name: c
    'port' : 3
  1: x
  text: |
    port: 9
  list: [[x], [y,
    z]]
";
        let line = |field: &str| Locator::default().line(text, &path(field));
        assert_eq!(line("spec"), Some(2));
        assert_eq!(line("spec.ports"), Some(4));
        assert_eq!(line("spec.ports[0].port"), Some(6));
        assert_eq!(line("spec.ports[1].port"), Some(8));
        assert_eq!(line("spec.ports[2]"), Some(9));
        assert_eq!(line("spec.ports[2].port"), Some(10));
        assert_eq!(line("spec.list[1][1]"), Some(15));
        assert_eq!(line("spec.text"), Some(12));
        assert_eq!(
            line("spec.ports[0].protocol"),
            Some(5),
            "the nearest thing around it"
        );
        assert_eq!(line("spec.ports[7].port"), Some(4));
        assert_eq!(line("spec.text.inside"), Some(12));
        assert_eq!(line("status"), Some(2));
    }
    #[test]
    fn the_work_is_bounded() {
        let text = format!("# words\na: 1\nb: 2\n{}", "#\n".repeat(1 << 20));
        let locator = Locator::default();
        let lines: Vec<_> = (0..6).map(|_| locator.line(&text, &path("b"))).collect();
        assert_eq!(lines, [Some(3), Some(3), Some(3), Some(2), Some(2), Some(2)]);
    }
}
