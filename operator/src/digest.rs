//! A number for each JSON value, so that large specs are compared without being kept.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The first 128 bits of a SHA-256.
pub type Digest = u128;

/// The digest of a value. The order of an object's members does not count, and members that are null count as absent:
/// the API server may hand back an object with other ones.
#[must_use]
pub fn digest(value: &Value) -> Digest {
    let mut hash = Sha256::new();
    add(&mut hash, value);
    finish(hash)
}

/// The digest of a named value.
#[must_use]
pub fn digest_named(name: &str, value: &Value) -> Digest {
    let mut hash = Sha256::new();
    add_text(&mut hash, b'n', name);
    add(&mut hash, value);
    finish(hash)
}

/// The digest of a text, for placing things by name.
#[must_use]
pub fn digest_text(text: &str) -> Digest {
    let mut hash = Sha256::new();
    add_text(&mut hash, b's', text);
    finish(hash)
}

fn add(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"0"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Number(number) => add_text(hash, b'#', &number.to_string()),
        Value::String(text) => add_text(hash, b's', text),
        Value::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| add(hash, item));
            hash.update(b"]");
        }
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> =
                map.iter().filter(|(_, value)| !value.is_null()).collect();
            members.sort_by_key(|(name, _)| *name);
            hash.update(b"{");
            for (name, value) in members {
                add_text(hash, b':', name);
                add(hash, value);
            }
            hash.update(b"}");
        }
    }
}

fn add_text(hash: &mut Sha256, kind: u8, text: &str) {
    hash.update([kind]);
    hash.update(text.len().to_be_bytes());
    hash.update(text.as_bytes());
}

fn finish(hash: Sha256) -> Digest {
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(16)
        .fold(0, |number, &byte| number << 8 | Digest::from(byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_and_nulls_of_members_do_not_count() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":null,"c":[1,null]}"#).expect("valid JSON");
        let other: Value = serde_json::from_str(r#"{"c":[1,null],"a":1}"#).expect("valid JSON");
        assert_eq!(digest(&one), digest(&other));
    }

    #[test]
    fn values_that_differ_have_different_digests() {
        let values = [
            json!(null),
            json!(0),
            json!("0"),
            json!([]),
            json!({}),
            json!([[], []]),
            json!([[[]]]),
            json!({"a": []}),
            json!({"a": {}}),
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!(true),
            json!(false),
        ];
        let digests: std::collections::BTreeSet<Digest> = values.iter().map(digest).collect();
        assert_eq!(digests.len(), values.len());
        assert_ne!(digest_named("a", &json!(1)), digest_named("b", &json!(1)));
    }
}
