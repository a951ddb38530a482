//! The rules for names and labels (`k8s.io/apimachinery/pkg/util/validation`). Each function says what is wrong, or
//! nothing.

/// RFC 1123 label: what namespaces are named by.
pub(crate) fn label(name: &str) -> Result<(), String> {
    if is_dns_part(name) && name.len() <= 63 {
        Ok(())
    } else {
        Err(format!(
            "{name:?} is no name: 1 to 63 lower case letters, digits and '-', with a letter or digit at both ends"
        ))
    }
}

/// RFC 1123 subdomain: what most objects are named by. Its parts have no limit of their own.
pub(crate) fn subdomain(name: &str) -> Result<(), String> {
    if name.len() <= 253 && name.split('.').all(is_dns_part) {
        Ok(())
    } else {
        Err(format!(
            "{name:?} is no name: up to 253 lower case letters, digits, '-' and '.', with a letter or digit at both \
             ends of each part"
        ))
    }
}

fn is_dns_part(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        && part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
}

/// The key of a label or annotation: an optional subdomain and `/`, and a name.
pub(crate) fn qualified(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if is_qualified_part(name) && prefix.is_none_or(|prefix| subdomain(prefix).is_ok()) {
        Ok(())
    } else {
        Err(format!(
            "{key:?} is no key: a name of up to 63 characters, with a DNS name and '/' in front if need be"
        ))
    }
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_qualified_part(value) {
        Ok(())
    } else {
        Err(format!(
            "{value:?} is no label value: up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both \
             ends"
        ))
    }
}

fn is_qualified_part(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends(text.bytes().next())
        && ends(text.bytes().last())
}

/// RFC 6335: the name of a port of a container.
pub(crate) fn port_name(name: &str) -> Result<(), String> {
    let well_formed = name.len() <= 15
        && label(name).is_ok()
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase());
    if well_formed {
        Ok(())
    } else {
        Err(format!(
            "{name:?} is no port name: up to 15 lower case letters, digits and single '-', at least one letter among \
             them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name_and_what_is_none() {
        type Rule = fn(&str) -> Result<(), String>;
        let long = |length: usize| "a".repeat(length);
        let cases: [(Rule, &[&str], &[&str]); 5] = [
            (
                label,
                &["a", "0", "a-b", &long(63)],
                &["", "-a", "a-", "A", "a.b", "a_b", "ä", &long(64)],
            ),
            (
                subdomain,
                &["a", "a.b-c.0", &long(253), &vec!["abc"; 63].join(".")],
                &["", ".a", "a.", "a..b", "a.-b", "A.b", "a b", &long(254)],
            ),
            (
                qualified,
                &["app", "App_1.x", "k8s.io/app", &long(63)],
                &["", "/a", "a/", "a/b/c", "K8s.io/a", "-a", "a b", &long(64)],
            ),
            (
                label_value,
                &["", "a", "A_b.C-1", &long(63)],
                &["-a", "a-", "a b", "a/b", &long(64)],
            ),
            (
                port_name,
                &["http", "a-1", "1a"],
                &["", "80", "a--b", "HTTP", "-a", "sixteen-letters-"],
            ),
        ];
        for (rule, good, bad) in cases {
            for name in good {
                assert_eq!(rule(name), Ok(()));
            }
            for name in bad {
                assert!(rule(name).is_err(), "{name:?}");
            }
        }
    }
}
